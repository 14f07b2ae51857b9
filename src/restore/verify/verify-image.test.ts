import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Extent } from '../../base/extents.ts';
import { problemsOfExt, problemsOfXfs, saysLogIsDirty } from './complaints.ts';
import { sampleOf } from './read.ts';

// eslint-disable-next-line @typescript-eslint/require-await
async function* stream(extents: readonly Extent[]): AsyncGenerator<Extent> {
  yield* extents;
}

test('a sample takes its share of the units, one from each section', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 1, max: 2000 }),
      fc.constantFrom(1, 0.5, 0.3, 0.05, 0.01),
      fc.nat(),
      async (units, share, seed) => {
        const extents = [{ offset: 1000, length: units * 10 - 3 }];
        const found: Extent[] = [];
        for await (const extent of sampleOf(stream(extents), 10, share, (below) => seed % below))
          found.push(extent);
        for (const { offset, length } of found) {
          assert.equal(offset % 10, 0);
          assert.ok(length > 0 && length <= 10 && offset + length <= 1000 + units * 10 - 3);
        }
        const expected = units * share;
        assert.ok(
          found.length >= Math.floor(expected) && found.length <= Math.ceil(expected),
          `${found.length} of ${expected}`,
        );
        if (share === 1)
          assert.equal(
            found.reduce((sum, { length }) => sum + length, 0),
            units * 10 - 3,
          );
      },
    ),
  );
});

test('the usual messages of the checkers are no problems; other messages are', () => {
  const clean =
    'e2fsck 1.47.0 (5-Feb-2023)\nPass 1: Checking inodes, blocks, and sizes\n/dev/loop0: 11/64 files (0.0% non-contiguous), 14/64 blocks\n';
  assert.deepEqual(problemsOfExt(clean), []);
  assert.deepEqual(problemsOfExt(`${clean}Block bitmap differences:  +100\nFix? no\n`), [
    'Block bitmap differences:  +100',
    'Fix? no',
  ]);
  const frozen = `Phase 1 - find and verify superblock...
Phase 2 - using internal log
        - zero log...
ALERT: The filesystem has valuable metadata changes in a log which is being
ignored because the -n option was used.  Expect spurious inconsistencies
which may be resolved by first mounting the filesystem to replay the log.
        - scan filesystem freespace and inode maps...
sb_fdblocks 120, counted 125
No modify flag set, skipping filesystem flush and exiting.
`;
  assert.equal(saysLogIsDirty(frozen), true);
  assert.deepEqual(problemsOfXfs(frozen, true), []);
  assert.equal(problemsOfXfs(frozen, false).length, 4);
  assert.deepEqual(problemsOfXfs(`${frozen}bad magic number 0x0 in inode 131\n`, true), [
    'bad magic number 0x0 in inode 131',
  ]);
});
