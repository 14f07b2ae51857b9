import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type MbrPart, writeGpt, writeMbr } from '../../../test/helpers/synthetic-gpt.ts';
import { readPartitionTable } from './partition-table.ts';
import type { PartitionTable } from './partition.ts';

const sectors = 4096;

function read(disk: Buffer, sectorSize = 512): Promise<PartitionTable | undefined> {
  const readAt = (offset: number, length: number): Promise<Buffer> =>
    offset + length <= disk.length
      ? Promise.resolve(Buffer.from(disk.subarray(offset, offset + length)))
      : Promise.reject(new RangeError(`${length} bytes at ${offset} of ${disk.length}`));
  return readPartitionTable(readAt, disk.length, sectorSize);
}

for (const sectorSize of [512, 1024, 2048, 4096])
  test(`GPT with sectors of ${sectorSize} bytes, and its backup`, async () => {
    const disk = Buffer.alloc(sectors * sectorSize);
    writeGpt(disk, sectorSize, [
      { first: 100, last: 199 },
      { first: 300, last: 300 },
    ]);
    const table = await read(disk, sectorSize);
    assert.equal(table?.problem, undefined);
    assert.deepEqual(
      table?.partitions.map(({ number, start, size, label }) => ({ number, start, size, label })),
      [
        { number: 1, start: 100 * sectorSize, size: 100 * sectorSize, label: 'part 1' },
        { number: 2, start: 300 * sectorSize, size: sectorSize, label: 'part 2' },
      ],
    );

    disk[sectorSize + 60]! ^= 1;
    const backup = await read(disk, sectorSize);
    assert.deepEqual(backup?.partitions, table.partitions);
    assert.match(backup.warnings.join(), /primary header: checksum .* the backup is used/);

    disk[disk.length - sectorSize + 60]! ^= 1;
    const none = await read(disk, sectorSize);
    assert.match(none?.problem ?? '', /primary header: checksum .* backup header: checksum/);
  });

test('GPT: damage to the entries is detected', async () => {
  const disk = Buffer.alloc(sectors * 512);
  writeGpt(disk, 512, [{ first: 100, last: 199 }]);
  disk[1024 + 32]! ^= 1;
  assert.match((await read(disk))?.warnings.join() ?? '', /entries' checksum/);
});

test('GPT: partitions that overlap, lie over the table, or end before they begin', async () => {
  for (const [parts, problem] of [
    [
      [
        { first: 100, last: 200 },
        { first: 200, last: 300 },
      ],
      /partition 1 ends at byte 102912, but partition 2 begins at 102400/,
    ],
    [[{ first: 10, last: 200 }], /partition 1 begins at byte 5120, before 17408/],
    [[{ first: 100, last: sectors - 2 }], /partition 1 ends at byte .*, after/],
    [[{ first: 100, last: 50 }], /partition 1 ends at byte 26112, before its start 51200/],
  ] as const) {
    const disk = Buffer.alloc(sectors * 512);
    writeGpt(disk, 512, parts);
    assert.match((await read(disk))?.problem ?? '', problem);
  }
});

test('a protective MBR without a GPT, and a hybrid one with one', async () => {
  const disk = Buffer.alloc(sectors * 512);
  writeMbr(disk, 0, [{ type: 0xee, start: 1, sectors: sectors - 1 }]);
  assert.match((await read(disk))?.problem ?? '', /no signature in sector 1; backup/);

  writeGpt(disk, 512, [{ first: 100, last: 199 }]);
  writeMbr(disk, 0, [
    { type: 0x83, start: 100, sectors: 100 },
    { type: 0xee, start: 1, sectors: 99 },
  ]);
  assert.equal((await read(disk))?.kind, 'gpt');
});

test('MBR with logical partitions', async () => {
  const disk = Buffer.alloc(sectors * 512);
  disk.writeUInt32LE(0xdeadbeef, 440);
  writeMbr(disk, 0, [
    { type: 0x83, start: 64, sectors: 100 },
    { type: 0, start: 0, sectors: 0 },
    { type: 0x05, start: 1000, sectors: 3000 },
  ]);
  writeMbr(disk, 1000 * 512, [
    { type: 0x83, start: 10, sectors: 90 },
    { type: 0x05, start: 500, sectors: 1000 },
  ]);
  writeMbr(disk, 1500 * 512, [{ type: 0x82, start: 20, sectors: 80 }]);
  const table = await read(disk);
  assert.equal(table?.problem, undefined);
  assert.equal(table?.uuid, 'deadbeef');
  assert.deepEqual(
    table.partitions.map((p) => [p.number, p.start / 512, p.size / 512, p.uuid, p.type, p.container]),
    [
      [1, 64, 100, 'deadbeef-01', '0x83', false],
      [3, 1000, 3000, 'deadbeef-03', '0x5', true],
      [5, 1010, 90, 'deadbeef-05', '0x83', false],
      [6, 1520, 80, 'deadbeef-06', '0x82', false],
    ],
  );
});

test('MBR: overlaps, partitions outside the disk, circular chains', async () => {
  const problem = async (entries: readonly MbrPart[], ebr?: readonly MbrPart[]): Promise<string> => {
    const disk = Buffer.alloc(sectors * 512);
    writeMbr(disk, 0, entries);
    if (ebr !== undefined) writeMbr(disk, 1000 * 512, ebr);
    return (await read(disk))?.problem ?? '';
  };
  const extended = { type: 0x0f, start: 1000, sectors: 3000 };
  assert.match(
    await problem([{ type: 0x83, start: 4000, sectors: 97 }]),
    /partition 1 ends at byte 2097664, after 2097152/,
  );
  assert.match(
    await problem([{ type: 0x83, start: 0, sectors: 97 }]),
    /partition 1 begins at byte 0, before 512/,
  );
  assert.match(
    await problem([extended, { type: 0x83, start: 3999, sectors: 2 }]),
    /partition 1 ends at byte 2048000, but partition 2 begins at 2047488/,
  );
  const data = { type: 0x83, start: 10, sectors: 90 };
  assert.match(
    await problem([extended], [data, { type: 5, start: 200, sectors: 9 }]),
    /no table in sector 1200/,
  );
  assert.match(await problem([extended], [data, { type: 5, start: 9000, sectors: 9 }]), /leads to 10000/);
  assert.match(
    await problem([extended], [{ type: 0x83, start: 0, sectors: 90 }]),
    /a table of logical partitions ends at byte .* but partition 5|partition 5 ends at byte .* but a table/,
  );
});

test('no table: nothing there, an impossible boot indicator, the boot sector of a FAT', async () => {
  const disk = Buffer.alloc(sectors * 512);
  assert.equal(await read(disk), undefined);
  writeMbr(disk, 0, [{ type: 0x83, start: 64, sectors: 100 }]);
  disk[446] = 0x41;
  assert.equal(await read(disk), undefined);

  const fat = Buffer.alloc(sectors * 512);
  fat.set([0xeb, 0x3c, 0x90]);
  fat.writeUInt16LE(512, 0x0b);
  fat.set([4, 1, 0, 2, 0, 2], 0x0d);
  fat.writeUInt16LE(sectors, 0x13);
  fat[0x15] = 0xf8;
  fat.writeUInt16LE(4, 0x16);
  fat.writeUInt16BE(0x55aa, 510);
  assert.equal(await read(fat), undefined);
});

test('reading the table ends and stays within the disk for any contents of the disk', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(0, 5, 0x0f, 0x83, 0xee), fc.nat(5000), fc.nat(5000)), {
        minLength: 4,
        maxLength: 12,
      }),
      fc.boolean(),
      async (entries, everySector) => {
        const disk = Buffer.alloc(64 * 512);
        const four = (from: number): MbrPart[] =>
          Array.from({ length: 4 }, (_, i) => entries[(from + i) % entries.length]!).map(
            ([type, start, count]) => ({ type, start: start % 80, sectors: count % 80 }),
          );
        for (let sector = 0; sector < (everySector ? 64 : 1); sector++)
          writeMbr(disk, sector * 512, four(sector));
        const table = await read(disk);
        if (table?.problem !== undefined) return;
        for (const { start, size } of table?.partitions ?? [])
          assert.ok(start >= 512 && size > 0 && start + size <= disk.length);
      },
    ),
  );
});
