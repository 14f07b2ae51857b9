/**
 * The facts kept of a reading of XFS, so that the next one reads only the allocation groups that may have changed. The
 * used blocks of a group follow from its AGF, the blocks of its free-space trees, and the superblock.
 */
import { layoutChange } from '../same-layout.ts';
import type { EarlierMap } from '../used-map.ts';
import type { XfsSuperblock } from './superblock.ts';

export class KeptGroups {
  readonly #sb: XfsSuperblock;
  /** The blocks of the trees, inside the group; undefined if the group was inconsistent, or was not read. */
  readonly #trees: (Uint32Array | undefined)[];

  constructor(sb: XfsSuperblock) {
    this.#sb = sb;
    this.#trees = new Array<Uint32Array | undefined>(sb.agCount).fill(undefined);
  }

  /** Records that a group was read from these blocks of trees; undefined if the group was inconsistent. */
  note(group: number, trees: readonly number[] | undefined): void {
    this.#trees[group] = trees && Uint32Array.from(trees);
  }

  /**
   * Returns the groups that may have changed, in ascending order; or why they cannot be known. `sb`: the present
   * superblock.
   */
  stale(sb: XfsSuperblock, isWritten: EarlierMap['isWritten']): readonly number[] | string {
    const change = layoutChange(this.#sb, sb, volatileFields);
    if (change !== undefined) return change;
    const stale: number[] = [];
    for (let group = 0; group < sb.agCount; group++) if (this.#isStale(group, isWritten)) stale.push(group);
    return stale;
  }

  #isStale(group: number, isWritten: EarlierMap['isWritten']): boolean {
    const { agBlocks, blockSize, sectorSize } = this.#sb;
    const trees = this.#trees[group];
    if (trees === undefined) return true;
    const start = group * agBlocks * blockSize;
    if (isWritten(start + sectorSize, sectorSize)) return true;
    return trees.some((block) => isWritten(start + block * blockSize, blockSize));
  }
}

/** Fields that may change without a change of the layout. */
const volatileFields: ReadonlySet<keyof XfsSuperblock> = new Set(['label']);
