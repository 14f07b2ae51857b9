/**
 * The facts kept of a reading of ext, so that the next one reads only the groups that may have changed. The used blocks
 * of a group follow from its descriptor, its block bitmap, the places of all metadata, and the superblock.
 *
 * One block of the descriptor table holds many groups, and most writes change one of them. So the descriptors are kept
 * as they are on disk. In a table block that was written, only the groups whose descriptor differs have changed.
 */
import type { EarlierMap } from '../used-map.ts';
import type { ReadAt } from '../../block/source.ts';
import { layoutChange } from '../same-layout.ts';
import { type GroupDescriptor, parseDescriptor, readTableBlocks } from './descriptors.ts';
import { incompat, roCompat } from './features.ts';
import { descriptorBlock } from './layout.ts';
import type { ExtSuperblock } from './superblock.ts';

/** The most blocks of the descriptor table that are read at once. */
const tableBlocksAtOnce = 256;

export class KeptGroups {
  readonly sb: ExtSuperblock;
  readonly #table: Buffer;
  /** Offset of each group's block bitmap, in bytes; -1 if it is not on disk. */
  readonly #bitmaps: Float64Array;
  /** Groups that were inconsistent when they were read. */
  readonly #doubtful = new Set<number>();
  /** Why no part of this may be used again. */
  #doubt: string | undefined;

  constructor(sb: ExtSuperblock) {
    this.sb = sb;
    this.#table = Buffer.alloc(sb.groups * sb.descriptorSize);
    this.#bitmaps = new Float64Array(sb.groups).fill(-1);
  }

  /**
   * Stores a descriptor of the survey of the whole table, which finds the metadata. A wrong descriptor leaves the place
   * of its metadata unknown.
   */
  begin(descriptor: GroupDescriptor): void {
    this.#doubt ??= descriptor.problem;
    this.#store(descriptor);
  }

  /** Records that a group was read with this descriptor and with this outcome. */
  note(descriptor: GroupDescriptor, problem: string | undefined): void {
    if (!this.#raw(descriptor.group).equals(descriptor.raw)) {
      if (!isSamePlace(this.descriptor(descriptor.group), descriptor)) this.#doubt ??= movedText(descriptor);
      this.#store(descriptor);
    }
    if (problem === undefined) this.#doubtful.delete(descriptor.group);
    else this.#doubtful.add(descriptor.group);
  }

  descriptor(group: number): GroupDescriptor {
    return parseDescriptor(this.sb, group, this.#raw(group));
  }

  /**
   * Returns the groups that may have changed, in ascending order; or why they cannot be known. `sb`: the present
   * superblock.
   */
  async stale(
    sb: ExtSuperblock,
    readAt: ReadAt,
    isWritten: EarlierMap['isWritten'],
    signal: AbortSignal | undefined,
  ): Promise<readonly number[] | string> {
    const doubt = this.#doubt ?? layoutChange(steady(this.sb), steady(sb), volatileFields);
    if (doubt !== undefined) return doubt;
    const stale = new Set(this.#doubtful);
    for (const [from, to] of this.#tableBlocksToRead(isWritten)) {
      signal?.throwIfAborted();
      const blocks = await readTableBlocks(sb, readAt, from, to);
      for (const [i, block] of blocks.entries()) {
        const problem = this.#compareBlock(from + i, block, stale);
        if (problem !== undefined) return problem;
      }
    }
    for (let group = 0; group < sb.groups; group++) {
      const place = this.#bitmaps[group]!;
      if (place >= 0 && isWritten(place, sb.blockSize)) stale.add(group);
    }
    return [...stale].sort((a, b) => a - b);
  }

  /** Yields ranges of the table's blocks, by their number. */
  *#tableBlocksToRead(isWritten: EarlierMap['isWritten']): Generator<readonly [from: number, to: number]> {
    const { sb } = this;
    const doubtful = new Set([...this.#doubtful].map((group) => Math.floor(group / sb.descriptorsPerBlock)));
    const wanted = (index: number): boolean =>
      doubtful.has(index) || isWritten(descriptorBlock(sb, index) * sb.blockSize, sb.blockSize);
    for (let from = 0; from < sb.descriptorBlocks; from++) {
      if (!wanted(from)) continue;
      let to = from + 1;
      while (to < sb.descriptorBlocks && to - from < tableBlocksAtOnce && wanted(to)) to++;
      yield [from, to];
      from = to - 1;
    }
  }

  /** Stores the descriptors that differ. Returns the reason if the whole map becomes unreliable. */
  #compareBlock(index: number, block: Buffer, stale: Set<number>): string | undefined {
    const { sb } = this;
    const first = index * sb.descriptorsPerBlock;
    const count = Math.min(sb.descriptorsPerBlock, sb.groups - first);
    const bytes = count * sb.descriptorSize;
    const at = first * sb.descriptorSize;
    if (block.compare(this.#table, at, at + bytes, 0, bytes) === 0) return undefined;
    for (let group = first; group < first + count; group++) {
      const raw = block.subarray(
        (group - first) * sb.descriptorSize,
        (group - first + 1) * sb.descriptorSize,
      );
      if (raw.equals(this.#raw(group))) continue;
      const descriptor = parseDescriptor(sb, group, raw);
      if (descriptor.problem !== undefined) return descriptor.problem;
      if (!isSamePlace(this.descriptor(group), descriptor)) return movedText(descriptor);
      this.#store(descriptor);
      stale.add(group);
    }
    return undefined;
  }

  #store({ group, raw, blockBitmap, uninitialised, problem }: GroupDescriptor): void {
    this.#table.set(raw, group * this.sb.descriptorSize);
    const onDisk = !uninitialised && problem === undefined;
    this.#bitmaps[group] = onDisk ? blockBitmap * this.sb.blockSize : -1;
  }

  #raw(group: number): Buffer {
    return this.#table.subarray(group * this.sb.descriptorSize, (group + 1) * this.sb.descriptorSize);
  }
}

function isSamePlace(a: GroupDescriptor, b: GroupDescriptor): boolean {
  return a.blockBitmap === b.blockBitmap && a.inodeBitmap === b.inodeBitmap && a.inodeTable === b.inodeTable;
}

function movedText({ group }: GroupDescriptor): string {
  return `group ${group}: its bitmaps or its inode table have moved`;
}

/** Fields that may change without a change of the layout, and are checked separately (superblockProblem). */
const volatileFields: ReadonlySet<keyof ExtSuperblock> = new Set([
  'identity',
  'storedChecksum',
  'computedChecksum',
  'state',
]);

/** Returns the superblock without the bits that a mounted filesystem sets and clears. */
function steady(sb: ExtSuperblock): ExtSuperblock {
  const { features } = sb;
  return {
    ...sb,
    features: {
      ...features,
      incompat: features.incompat & ~incompat.needs_recovery,
      roCompat: features.roCompat & ~roCompat.orphan_present,
    },
  };
}
