/**
 * Metadata made by an attacker: the grammar of each format is kept (magics, checksums, geometry that nearly fits), and
 * the values are not. Reading the map always ends soon, and reads no more than the device several times. It gives a map
 * that keeps its contract, or says that everything is used. HOSTILE_RUNS=20000 makes a campaign of it, HOSTILE_SEED
 * repeats one.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32 } from 'node:zlib';
import fc from 'fast-check';
import { crafted, craftedSize } from '../../test/helpers/crafted-ext.ts';
import { foreignHeaders, foreignMagics } from '../../test/helpers/foreign-signatures.ts';
import { writeGpt, writeMbr } from '../../test/helpers/synthetic-gpt.ts';
import { syntheticXfs } from '../../test/helpers/synthetic-xfs.ts';
import { Bitmap } from '../base/bitmap.ts';
import { MiB } from '../base/bytes.ts';
import type { ReadAt } from '../block/source.ts';
import { markUsed } from './mark-used.ts';
import { probe } from './probe.ts';

const runs = Number(process.env['HOSTILE_RUNS'] ?? 40);
const parameters = {
  numRuns: runs,
  ...(process.env['HOSTILE_SEED'] === undefined ? {} : { seed: Number(process.env['HOSTILE_SEED']) }),
};
/** Far above the time of any run, far below the time that a person would call hanging. */
const longestMs = 10_000;

async function readsInBounds(base: ReadAt, size: number): Promise<void> {
  let bytes = 0;
  const readAt: ReadAt = (offset, length) => {
    assert.ok(
      offset >= 0 && length >= 0 && offset + length <= size,
      `${length} bytes at ${offset} of ${size}`,
    );
    bytes += length;
    return base(offset, length);
  };
  const start = performance.now();
  await probe(readAt, size);
  for (const state of ['idle', 'frozen', 'live'] as const) {
    const bitmap = new Bitmap(size, 4096);
    const map = await markUsed(bitmap, readAt, size, 512, { state });
    if (map.everything) assert.ok(map.usedBytes === size && map.warnings.length > 0);
    assert.ok(map.usedBytes <= size);
    assert.ok(bitmap.bytes() >= map.usedBytes);
  }
  const ms = performance.now() - start;
  assert.ok(ms < longestMs, `${ms} ms`);
  assert.ok(bytes < 12 * size + 64 * MiB, `${bytes} bytes were read of a device of ${size}`);
}

function over(disk: Buffer): ReadAt {
  return (offset, length) => Promise.resolve(Buffer.from(disk.subarray(offset, offset + length)));
}

const number32 = fc.oneof(
  fc.nat(64),
  fc.nat(100_000),
  fc.integer({ min: 0, max: 31 }).map((bit) => (1 << bit) >>> 0),
  fc.constantFrom(0, 0x7fffffff, 0x80000000, 0xffffffff),
);

test('ext: arbitrary groups, tables and flags, with right checksums', async () => {
  const place = fc.oneof(fc.nat(65_535), number32);
  await fc.assert(
    fc.asyncProperty(
      fc.record({
        blocksPerGroup: fc.constantFrom(8, 16, 64, 256, 1024, 4096, 8192),
        inodesPerGroup: fc.constantFrom(8, 64, 1024, 8192),
        flags: fc.constantFrom(0, 2, 3, 7),
        freeClusters: fc.nat(65_535),
        bases: fc.tuple(place, place, place),
        steps: fc.tuple(fc.nat(70), fc.nat(70), fc.nat(70)),
      }),
      fc.array(fc.tuple(fc.nat(255), number32), { maxLength: 3 }),
      async ({ bases, steps, ...rest }, words) => {
        const places = (group: number): [number, number, number] => [
          (bases[0] + group * steps[0]) >>> 0,
          (bases[1] + group * steps[1]) >>> 0,
          (bases[2] + group * steps[2]) >>> 0,
        ];
        const disk = crafted({ ...rest, places });
        for (const [word, value] of words) disk.writeUInt32LE(value, 1024 + word * 4);
        await readsInBounds(over(disk), craftedSize);
      },
    ),
    parameters,
  );
});

test('XFS: arbitrary fields of superblock, AGF and trees, with right checksums', async () => {
  const edit = fc.record({ piece: fc.nat(), word: fc.nat(), value: number32 });
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(4 as const, 5 as const),
      fc.array(edit, { minLength: 1, maxLength: 5 }),
      async (version, edits) => {
        const xfs = syntheticXfs({ version, fanout: 6, agBlocks: 4096, blocks: 12_000 });
        const places: [number, 'sb' | 'agf' | 'tree'][] = [
          [0, 'sb'],
          ...[0, 1, 2].map((group) => [group * 4096 * 4096 + 512, 'agf'] as [number, 'agf']),
          ...[...xfs.treeBlocks.values()].flat().map((offset) => [offset, 'tree'] as [number, 'tree']),
        ];
        for (const { piece, word, value } of edits) {
          const [offset, kind] = places[piece % places.length]!;
          const data = xfs.pieces.get(offset)!;
          // Mostly in the first 64 words, which hold the fields.
          data.writeUInt32BE(value, (word % 64) * 4);
          if (version === 5) xfs.seal(offset, kind);
        }
        await readsInBounds(xfs.readAt, xfs.size);
      },
    ),
    parameters,
  );
});

test('partition tables: arbitrary ranges, with right checksums, over arbitrary signatures', async () => {
  const size = 4 * MiB;
  const sectors = size / 512;
  const range = fc.record({ first: fc.nat(sectors), last: fc.oneof(fc.nat(sectors), number32) });
  const entry = fc.record({
    type: fc.constantFrom(0x83, 5, 0x0f, 0xee, 0x82),
    start: fc.oneof(fc.nat(sectors), number32),
    sectors: fc.oneof(fc.nat(sectors), number32),
  });
  const foreign = [...foreignMagics(size), ...foreignHeaders(size)].filter(
    ({ offset, bytes }) => offset >= 0 && offset + bytes.length <= size,
  );
  await fc.assert(
    fc.asyncProperty(
      fc.boolean(),
      fc.array(range, { maxLength: 128 }),
      fc.array(fc.tuple(fc.nat(sectors - 1), fc.array(entry, { minLength: 1, maxLength: 4 })), {
        maxLength: 12,
      }),
      fc.subarray(foreign, { maxLength: 3 }),
      number32,
      async (gpt, ranges, tables, signatures, count) => {
        const disk = Buffer.alloc(size);
        if (gpt) {
          writeGpt(disk, 512, ranges);
          // Sometimes the header claims this many entries.
          if (count % 3 === 0) {
            disk.writeUInt32LE(count, 512 + 80);
            disk.writeUInt32LE(0, 512 + 16);
            disk.writeUInt32LE(crc32(disk.subarray(512, 512 + 92)), 512 + 16);
          }
        } else
          for (const [i, [sector, entries]] of tables.entries())
            writeMbr(disk, i === 0 ? 0 : sector * 512, entries);
        for (const { offset, bytes } of signatures) bytes.copy(disk, offset);
        await readsInBounds(over(disk), size);
      },
    ),
    parameters,
  );
});
