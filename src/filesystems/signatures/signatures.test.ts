/** No filesystem is read below the signature of another one, at any place, or if another one is mounted. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { syntheticXfs } from '../../../test/helpers/synthetic-xfs.ts';
import { type Foreign, foreignHeaders, foreignMagics } from '../../../test/helpers/foreign-signatures.ts';
import { Bitmap } from '../../base/bitmap.ts';
import { MiB } from '../../base/bytes.ts';
import type { ReadAt } from '../../block/source.ts';
import { type MarkedMap, markUsed } from '../mark-used.ts';
import type { ReadUsedMapOptions } from '../read-used-map.ts';
import { findSignatures } from './signatures.ts';

/** Not a multiple of the units to which places at the end are rounded. */
const size = 160 * MiB + 3 * 512;

interface Base {
  readonly name: string;
  readonly readAt: ReadAt;
  /** Byte ranges that the reader needs. */
  readonly needs: readonly (readonly [number, number])[];
}

const bases: readonly Base[] = [xfsBase(), extBase()];

function xfsBase(): Base {
  const xfs = syntheticXfs();
  const readAt: ReadAt = async (offset, length) => {
    const inside = Math.max(0, Math.min(length, xfs.size - offset));
    const bytes = Buffer.alloc(length);
    if (inside > 0) bytes.set(await xfs.readAt(offset, inside));
    return bytes;
  };
  const needs = [...xfs.pieces].map(([start, piece]) => [start, start + piece.length] as const);
  return { name: 'XFS', readAt, needs };
}

/** Makes an ext2 of one group that is valid for the reader. */
function extBase(): Base {
  const words: [number, number][] = [
    [0x00, 64],
    [0x04, 256],
    [0x14, 1],
    [0x20, 8192],
    [0x24, 8192],
    [0x28, 64],
    [0x38, 0x1ef53],
    [0x4c, 1],
    [0x58, 128],
  ];
  const disk = Buffer.alloc(256 * 1024);
  for (const [at, value] of words) disk.writeUInt32LE(value, 1024 + at);
  for (const [i, value] of [3, 4, 5].entries()) disk.writeUInt32LE(value, 2048 + i * 4);
  // Blocks 1 to 12 are used: superblock, descriptors, bitmaps, eight blocks of inodes; 243 of 255 are free.
  disk.writeUInt16LE(0x0fff, 3 * 1024);
  disk.writeUInt16LE(243, 2048 + 12);
  disk.fill(0xff, 3 * 1024 + 32, 4 * 1024);
  disk[3 * 1024 + 31] = 0x80;
  return {
    name: 'ext2',
    readAt: (offset, length) => {
      const bytes = Buffer.alloc(length);
      if (offset < disk.length) disk.copy(bytes, 0, offset, Math.min(disk.length, offset + length));
      return Promise.resolve(bytes);
    },
    needs: [[1024, 4096]],
  };
}

function over(base: ReadAt, ...foreign: readonly Foreign[]): ReadAt {
  return async (offset, length) => {
    const bytes = Buffer.from(await base(offset, length));
    for (const { offset: at, bytes: own } of foreign)
      if (at < offset + length && at + own.length > offset)
        own.copy(bytes, Math.max(0, at - offset), Math.max(0, offset - at), own.length);
    return bytes;
  };
}

function mark(readAt: ReadAt, options: ReadUsedMapOptions = {}): Promise<MarkedMap> {
  return markUsed(new Bitmap(size, 65536), readAt, size, 512, options);
}

test('the bases are read if no other signature is there', async () => {
  for (const { name, readAt } of bases) {
    const map = await mark(readAt);
    assert.deepEqual([map.everything, map.warnings], [false, []], name);
    assert.ok(map.usedBytes < size, name);
  }
});

for (const [kind, foreign] of [
  ['every magic of the table', foreignMagics(size)],
  ['every header that has more than a magic', foreignHeaders(size)],
] as const)
  test(`everything is used below ${kind}`, async () => {
    for (const one of foreign) {
      const end = one.offset + one.bytes.length;
      // A signature that destroys bytes that the reader needs proves nothing. So it is tried on a base that it spares,
      // if there is one.
      const spared = bases.filter(({ needs }) =>
        needs.every(([from, to]) => end <= from || one.offset >= to),
      );
      for (const { name, readAt } of spared.length > 0 ? spared : bases) {
        const disk = over(readAt, one);
        const about = `${one.type} at ${one.offset} over ${name}`;
        const found = await findSignatures(disk, size);
        assert.ok(
          found.some(({ identity }) => identity.type === one.type),
          about,
        );
        for (const state of ['idle', 'frozen', 'live'] as const) {
          const map = await mark(disk, { state });
          assert.equal(map.everything, true, about);
          if (spared.length > 0)
            assert.match(map.warnings.join(), /cannot be told which is stale|every block is used/, about);
        }
      }
    }
  });

test('a damaged superblock makes the other signature doubtful', async () => {
  const [xfs, ext] = bases as [Base, Base];
  const magic = { type: 'ext2', offset: 1024 + 0x38, bytes: Buffer.from('53ef', 'hex') };
  assert.equal((await mark(over(xfs.readAt, magic))).everything, true);
  assert.equal(
    (await mark(over(ext.readAt, { type: 'xfs', offset: 0, bytes: Buffer.from('XFSB') }))).everything,
    true,
  );
});

test('a mounted device is read only as the type as which it is mounted', async () => {
  const [xfs, ext] = bases as [Base, Base];
  const how = '/dev/sdx is mounted';
  for (const type of ['ext2', 'ext3', 'ext4'])
    assert.equal((await mark(ext.readAt, { expected: { type, how } })).everything, false, type);
  assert.equal((await mark(xfs.readAt, { expected: { type: 'xfs', how } })).everything, false);
  for (const type of ['zfs', 'btrfs', 'ext4', 'fuseblk']) {
    const map = await mark(xfs.readAt, { state: 'live', expected: { type, how } });
    assert.equal(map.everything, true, type);
    assert.match(map.warnings.join(), new RegExp(`${how} as ${type}, but its signature is of xfs`));
  }
  const uuid = '00112233-4455-6677-8899-aabbccddeeff';
  const by = '/dev/sdx is used by /dev/mapper/y';
  assert.equal((await mark(xfs.readAt, { expected: { type: 'xfs', uuid, how: by } })).everything, false);
  const other = { type: 'xfs', uuid: '11112233-4455-6677-8899-aabbccddeeff', how: by };
  assert.equal((await mark(xfs.readAt, { expected: other })).everything, true);
});
