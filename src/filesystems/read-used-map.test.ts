/** For any contents of a device, its map is read within the device, ends, and keeps its contract. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../base/bitmap.ts';
import type { ReadAt } from '../block/source.ts';
import { markUsed } from './mark-used.ts';
import { probe } from './probe.ts';
import { readVerifiedUsedMap } from './read-verified-used-map.ts';

const size = 256 * 1024 + 512;

function over(disk: Buffer): ReadAt {
  return (offset, length) =>
    offset >= 0 && length >= 0 && offset + length <= disk.length
      ? Promise.resolve(Buffer.from(disk.subarray(offset, offset + length)))
      : Promise.reject(new RangeError(`${length} bytes at ${offset} of ${disk.length}`));
}

/** An offset, and bytes to put there. */
type Patch = readonly [offset: number, bytes: Uint8Array];

const signatures: readonly Patch[] = [
  [1024 + 0x38, Buffer.from('53ef', 'hex')],
  [0, Buffer.from('XFSB')],
  [4086, Buffer.from('SWAPSPACE2')],
  [510, Buffer.from('55aa', 'hex')],
  [512, Buffer.from('EFI PART')],
  [3, Buffer.from('NTFS    ')],
  [0x36, Buffer.from('FAT16   ')],
  [0x10040, Buffer.from('_BHRfS_M')],
  [0x8001, Buffer.from('CD001')],
  [512, Buffer.from('LABELONE')],
  [4096, Buffer.from('fc4e2ba901000000', 'hex')],
];

/** Makes an ext2 of 1 KiB blocks in one group. Its superblock is valid. */
function extSuperblock(): Patch[] {
  const words: [number, number][] = [
    [0x00, 64],
    [0x04, 256],
    [0x14, 1],
    [0x20, 8192],
    [0x24, 8192],
    [0x28, 64],
    [0x4c, 1],
    [0x58, 128],
  ];
  const word = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeUInt32LE(value);
    return bytes;
  };
  return [
    ...words.map(([offset, value]): Patch => [1024 + offset, word(value)]),
    [1024 + 0x38, Buffer.from('53ef0100', 'hex')],
    [2048, Buffer.concat([word(3), word(4), word(5), word(243)])],
    // Blocks 1 to 12 hold the filesystem's own metadata.
    [3 * 1024, Buffer.from([0xff, 0x0f])],
  ];
}

async function readsWell(patches: readonly Patch[]): Promise<void> {
  const disk = Buffer.alloc(size);
  for (const [offset, bytes] of patches) disk.set(bytes.subarray(0, size - offset), offset);
  const readAt = over(disk);
  await probe(readAt, size);
  for (const state of ['idle', 'frozen', 'live'] as const) {
    const bitmap = new Bitmap(size, 512);
    const mark = await markUsed(bitmap, readAt, size, 512, { state });
    assert.equal(bitmap.bytes(), mark.usedBytes);
    if (mark.everything) assert.ok(mark.usedBytes === size && mark.warnings.length > 0);
    const map = await readVerifiedUsedMap(readAt, size, 512, { state });
    assert.equal(map.everything, mark.everything);
    let [end, used] = [0, 0];
    for await (const batch of map.extents)
      for (const { offset, length } of batch) {
        assert.ok(length > 0 && offset >= end && offset + length <= size);
        end = offset + length;
        used += length;
      }
    assert.equal(used, mark.usedBytes);
  }
}

const noise = fc.tuple(
  fc.oneof(fc.nat(8192), fc.nat(size - 1)),
  fc.uint8Array({ minLength: 1, maxLength: 64 }),
);

test('noise under any signature', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(noise, { maxLength: 60 }),
      fc.subarray([...signatures], { maxLength: 3 }),
      (patches, some) => readsWell([...patches, ...some]),
    ),
    { numRuns: 200 },
  );
});

test('an ext superblock with some fields changed', async () => {
  const field = fc.tuple(
    fc.nat(0x280).map((offset) => 1024 + offset),
    fc.oneof(
      fc.constantFrom('00', '01', '10', '80', 'ff', 'ffffffff').map((hex) => Buffer.from(hex, 'hex')),
      fc.uint8Array({ minLength: 1, maxLength: 4 }),
    ),
  );
  const disk = Buffer.alloc(size);
  for (const [offset, bytes] of extSuperblock()) disk.set(bytes, offset);
  assert.equal((await markUsed(new Bitmap(size, 512), over(disk), size, 512)).everything, false);
  await fc.assert(
    fc.asyncProperty(
      fc.array(field, { minLength: 1, maxLength: 3 }),
      fc.array(noise, { maxLength: 2 }),
      (fields, more) => readsWell([...extSuperblock(), ...more, ...fields]),
    ),
    { numRuns: 200 },
  );
});
