import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { writeGpt } from '../../../test/helpers/synthetic-gpt.ts';
import type { ReadAt } from '../../block/source.ts';
import { type GptMove, moveGptBackup } from './gpt-move.ts';
import { readPartitionTable } from './partition-table.ts';

const entryBytes = 128 * 128;

function gptDisk(sectors: number, sectorSize: number): Buffer {
  const disk = Buffer.alloc(sectors * sectorSize);
  const around = 2 + Math.ceil(entryBytes / sectorSize);
  writeGpt(disk, sectorSize, [{ first: around, last: sectors - around }]);
  return disk;
}

function readerOf(disk: Buffer): ReadAt {
  return (offset, length) => Promise.resolve(Buffer.from(disk.subarray(offset, offset + length)));
}

function onLarger(disk: Buffer, size: number, move: GptMove | undefined, upTo = Infinity): Buffer {
  const larger = Buffer.alloc(size, 0x5a);
  disk.copy(larger);
  for (const { offset, data } of (move?.writes ?? []).slice(0, upTo)) data.copy(larger, offset);
  return larger;
}

const tableOf = (disk: Buffer, sectorSize: number) =>
  readPartitionTable(readerOf(disk), disk.length, sectorSize);

test('after the move to a larger disk both headers are valid, with any sizes', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(512, 4096),
      fc.integer({ min: 100, max: 300 }),
      fc.integer({ min: 1, max: 500 }),
      fc.nat(4000),
      async (sectorSize, sectors, more, odd) => {
        const disk = gptDisk(sectors, sectorSize);
        const size = disk.length + more * sectorSize + (odd % sectorSize);
        const move = await moveGptBackup(readerOf(disk), disk.length, size, sectorSize);
        const larger = onLarger(disk, size, move);
        const before = await tableOf(disk, sectorSize);
        const after = await tableOf(larger, sectorSize);
        assert.equal(after?.problem, undefined);
        assert.deepEqual(after?.warnings, []);
        assert.deepEqual(after.partitions, before?.partitions);
        // The primary is erased: the backup alone must be enough.
        larger.fill(0, sectorSize, 2 * sectorSize);
        const backup = await tableOf(larger, sectorSize);
        assert.equal(backup?.problem, undefined);
        assert.deepEqual(backup?.partitions, before?.partitions);
        const lastSector = Math.floor(size / sectorSize) - 1;
        assert.equal(larger.readUInt32LE(446 + 12), lastSector);
        const last = larger.subarray(lastSector * sectorSize);
        assert.equal(Number(last.readBigUInt64LE(48)), lastSector - entryBytes / sectorSize - 1);
      },
    ),
    { numRuns: 50 },
  );
});

test('the table can be read if the move is interrupted after any write', async () => {
  const disk = gptDisk(200, 512);
  const size = 400 * 512;
  const move = await moveGptBackup(readerOf(disk), disk.length, size, 512);
  for (let cut = 0; cut <= move!.writes.length; cut++) {
    const table = await tableOf(onLarger(disk, size, move, cut), 512);
    assert.equal(table?.problem, undefined, `after ${cut} writes`);
    assert.equal(table?.partitions.length, 1);
  }
});

test('a bad primary is rebuilt from the backup; if both are bad, they stay as they are and are reported', async () => {
  const disk = gptDisk(200, 512);
  disk[512 + 60]! ^= 1;
  const move = await moveGptBackup(readerOf(disk), disk.length, 400 * 512, 512);
  assert.match(move?.warnings.join() ?? '', /primary partition table was rebuilt/);
  const table = await tableOf(onLarger(disk, 400 * 512, move), 512);
  assert.deepEqual([table?.problem, table?.warnings], [undefined, []]);

  disk[disk.length - 512 + 60]! ^= 1;
  const none = await moveGptBackup(readerOf(disk), disk.length, 400 * 512, 512);
  assert.deepEqual(none?.writes, []);
  assert.match(none.warnings.join(), /was not moved/);
});

test('nothing to do: the same size, no GPT; a hybrid boot sector stays as it is', async () => {
  const disk = gptDisk(200, 512);
  assert.equal(await moveGptBackup(readerOf(disk), disk.length, disk.length, 512), undefined);
  assert.equal(await moveGptBackup(readerOf(disk), disk.length, disk.length + 511, 512), undefined);
  assert.equal(await moveGptBackup(readerOf(Buffer.alloc(102400)), 102400, 204800, 512), undefined);
  disk.writeUInt32LE(33, 446 + 12);
  disk[462 + 4] = 0x83;
  disk.writeUInt32LE(34, 462 + 8);
  disk.writeUInt32LE(100, 462 + 12);
  const move = await moveGptBackup(readerOf(disk), disk.length, 400 * 512, 512);
  assert.ok(move!.writes.every(({ offset }) => offset > 0));
});
