/** The used map of XFS by its allocation groups: everything except the extents of their free-space trees. */
import type { Extent } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';
import { type GroupOptions, type GroupReading, groupExtents } from '../group-reading.ts';
import type { EarlierMap, GroupPart, GroupedMap } from '../used-map.ts';
import { type FreeSpaceRoot, isUnreadable, parseAgf } from './allocation-group.ts';
import { type GroupRange, freeExtents, readMetadata } from './free-space-tree.ts';
import type { KeptGroups } from './kept.ts';
import { firstBlockAfterHeaders, groupLength, type XfsSuperblock } from './superblock.ts';

export type XfsReading = GroupReading<XfsSuperblock>;

/** The most extents in a part. */
const partLength = 4096;
/** Groups whose headers are read ahead. */
const groupsAhead = 16;
/** The tree's root is read together with the headers if both take at most this many bytes. */
const longestHead = 64 * 1024;

export class XfsGroups implements GroupedMap {
  readonly count: number;
  readonly stale: readonly number[] | undefined;
  readonly whyAll: string | undefined;
  readonly #reading: XfsReading;
  readonly #kept: KeptGroups | undefined;

  constructor(reading: XfsReading, options: GroupOptions<KeptGroups>) {
    this.count = reading.sb.agCount;
    this.stale = options.stale;
    this.whyAll = options.whyAll;
    this.#reading = reading;
    this.#kept = options.kept;
  }

  startOf(group: number): number {
    const { sb } = this.#reading;
    return group * sb.agBlocks * sb.blockSize;
  }

  /**
   * Returns the present map, in which only the groups that may have changed are stale; or why these groups cannot be
   * known.
   */
  next(reading: XfsReading, isWritten: EarlierMap['isWritten']): XfsGroups | string {
    if (this.#kept === undefined) return 'nothing was kept of it';
    const stale = this.#kept.stale(reading.sb, isWritten);
    return typeof stale === 'string' ? stale : new XfsGroups(reading, { kept: this.#kept, stale });
  }

  async *read(): AsyncGenerator<readonly GroupPart[]> {
    const { sb, readAt, signal } = this.#reading;
    const groups = this.stale ?? Array.from({ length: this.count }, (_, group) => group);
    for await (const head of groupHeads(readAt, sb, groups)) {
      signal?.throwIfAborted();
      for await (const part of this.#group(head)) yield [part];
    }
  }

  /** Yields all used extents, as `UsedMap.extents`. */
  extents(): AsyncGenerator<readonly Extent[]> {
    return groupExtents(this);
  }

  async *#group({ group, offset, head }: GroupHead): AsyncGenerator<GroupPart> {
    const { sb, readAt, deviceSize, state, signal } = this.#reading;
    const start = this.startOf(group);
    const end = group === this.count - 1 ? deviceSize : this.startOf(group + 1);
    let extents: Extent[] = [];
    /** All bytes before this are either in a part or free. */
    let from = start;
    const trees: number[] = [];
    let doubt: string | undefined;
    let inFlux = false;
    try {
      const agf = parseAgf(head.subarray(0, sb.sectorSize), sb, group);
      const reader = {
        ...{ sb, readAt, signal, strict: state !== 'live', head: { data: head, offset } },
        ...(this.#kept === undefined ? {} : { doubt: (reason: string) => void (doubt ??= reason) }),
        found: (blocks: readonly number[]) => {
          for (const block of blocks) trees.push(block);
        },
      };
      for await (const pairs of freeExtents(reader, agf, ownMetadata(sb, agf))) {
        for (let i = 0; i < pairs.length; i += 2) {
          const free = start + pairs[i]! * sb.blockSize;
          if (free > from) extents.push({ offset: from, length: free - from });
          from = free + pairs[i + 1]! * sb.blockSize;
        }
        if (extents.length < partLength) continue;
        yield { group, extents, last: false };
        extents = [];
      }
    } catch (error) {
      if (state !== 'live' || !isUnreadable(error)) throw error;
      doubt ??= error.message;
      inFlux = true;
    }
    this.#kept?.note(group, doubt === undefined ? trees : undefined);
    if (end > from) extents.push({ offset: from, length: end - from });
    yield { group, extents, last: true, inFlux };
  }
}

/** Returns metadata in the group that the free-space tree by block number does not name. */
function ownMetadata(sb: XfsSuperblock, agf: FreeSpaceRoot): GroupRange[] {
  const own: GroupRange[] = [];
  const add = (start: number, count: number): void => {
    if (start >= firstBlockAfterHeaders(sb) && start < agf.length) own.push({ start, end: start + count });
  };
  const logBlock = sb.logOffset === undefined ? undefined : sb.logOffset / sb.blockSize;
  if (logBlock !== undefined && Math.floor(logBlock / sb.agBlocks) === agf.group)
    add(logBlock % sb.agBlocks, Math.ceil(sb.logSize / sb.blockSize));
  if (sb.rootInode.group === agf.group) add(sb.rootInode.block, 1);
  add(agf.bySize.root, 1);
  return own;
}

interface GroupHead {
  readonly group: number;
  /** Offset in the group at which `head` begins: the AGF. */
  readonly offset: number;
  readonly head: Buffer;
}

/** Reads the AGF of each of these groups, usually with the root behind it, some groups ahead of their use. */
async function* groupHeads(
  readAt: ReadAt,
  sb: XfsSuperblock,
  groups: readonly number[],
): AsyncGenerator<GroupHead> {
  const offset = sb.sectorSize;
  const withRoot = (firstBlockAfterHeaders(sb) + 1) * sb.blockSize;
  const read = async (group: number): Promise<GroupHead> => {
    const length = groupLength(sb, group) * sb.blockSize;
    const end = withRoot <= Math.min(longestHead, length) ? withRoot : 2 * sb.sectorSize;
    const start = group * sb.agBlocks * sb.blockSize;
    const what = `XFS allocation group ${group}, headers`;
    return { group, offset, head: await readMetadata(readAt, start + offset, end - offset, what) };
  };
  const ahead: Promise<GroupHead>[] = [];
  for (const group of groups) {
    const next = read(group);
    // The promise is awaited in its turn. Until then, its rejection must not count as unhandled.
    next.catch(() => undefined);
    ahead.push(next);
    if (ahead.length >= groupsAhead) yield await ahead.shift()!;
  }
  for (const head of ahead) yield await head;
}
