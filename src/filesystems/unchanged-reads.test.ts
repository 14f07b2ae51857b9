import assert from 'node:assert/strict';
import { test } from 'node:test';
import { UnchangedReads } from './unchanged-reads.ts';

test('a range is read once; again if it was written, or in the reading that first read it', async () => {
  let content = 1;
  let reads = 0;
  const kept = new UnchangedReads();
  const readAt = kept.over((_offset, length) => {
    reads++;
    return Promise.resolve(new Uint8Array(length).fill(content));
  });
  const read = async (offset: number): Promise<number> => (await readAt(offset, 10))[0]!;
  kept.begin(() => true);
  assert.deepEqual([await read(0), await read(100), reads], [1, 1, 2]);
  content = 2;
  assert.equal(await read(0), 2, 'it may have been read in the middle of a write');

  content = 3;
  reads = 0;
  kept.begin((offset) => offset === 100);
  assert.deepEqual([await read(0), await read(100), reads], [2, 3, 1]);

  // Not read in this reading, and written before it: the old bytes must not come back in a later reading.
  content = 4;
  kept.begin((offset) => offset === 0);
  kept.begin(() => false);
  assert.deepEqual([await read(0), await read(100)], [4, 3]);
});

test('no more than 2.5 MiB are kept', async () => {
  let reads = 0;
  const kept = new UnchangedReads();
  const readAt = kept.over((_offset, length) => {
    reads++;
    return Promise.resolve(new Uint8Array(length));
  });
  for (let turn = 0; turn < 2; turn++) {
    kept.begin(() => turn === 0);
    for (let i = 0; i < 6; i++) await readAt(i * 2 ** 20, 2 ** 20);
  }
  assert.equal(reads, 6 + 4);
});
