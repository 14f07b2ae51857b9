/** Maps of synthetic XFS filesystems (synthetic-xfs.ts), for unit tests. */
import assert from 'node:assert/strict';
import { AgentError } from '../../src/base/errors.ts';
import type { Extent } from '../../src/base/extents.ts';
import type { ReadAt } from '../../src/block/source.ts';
import type { MountState } from '../../src/filesystems/used-map.ts';
import { readXfsUsedMap } from '../../src/filesystems/xfs/xfs.ts';
import type { SyntheticXfs } from './synthetic-xfs.ts';

export interface SyntheticOutcome {
  readonly everything: boolean;
  readonly reason: string;
  readonly used: readonly Extent[];
}

/** Reads the whole map. If a walk fails, everything counts as used, as for the callers of the map. */
export async function mapOf(readAt: ReadAt, size: number, state?: MountState): Promise<SyntheticOutcome> {
  const map = await readXfsUsedMap(readAt, size, state === undefined ? {} : { state });
  const used: Extent[] = [];
  try {
    for await (const batch of map.extents) used.push(...batch);
  } catch (error) {
    assert.ok(error instanceof AgentError && error.code === 'FILESYSTEM_UNREADABLE', String(error));
    return { everything: true, reason: error.message, used: [] };
  }
  let end = -1;
  for (const { offset, length } of used) {
    assert.ok(offset > end && length > 0, `${offset}+${length} after ${end}`);
    end = offset + length;
  }
  assert.ok(end <= size);
  return { everything: map.everything, reason: map.warnings.join('; '), used };
}

export const wholeMap = (fs: SyntheticXfs, state?: MountState): Promise<SyntheticOutcome> =>
  mapOf(fs.readAt, fs.size, state);

/** Returns extents by gaps and lengths, from `start` on. */
export function extentsOf(steps: readonly (readonly [number, number])[], start: number): [number, number][] {
  let at = start;
  return steps.map(([gap, count]) => {
    const first = at + gap;
    at = first + count;
    return [first, count];
  });
}
