import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GiB, KiB, MiB, TiB } from '../../base/bytes.ts';
import { readDescription, writeDescription } from './description.ts';
import { kernelDevice, layoutVersion, pageSize, shapeFor, shapeOf } from './layout.ts';

test('the unit is 4 KiB up to 1 TiB if units are bits, and the memory stays within 64 MiB and a few pages', () => {
  assert.equal(shapeFor(1 * MiB, 'bits').unit, 4 * KiB);
  assert.equal(shapeFor(1 * TiB, 'bits').unit, 4 * KiB);
  assert.equal(shapeFor(1 * TiB + 1, 'bits').unit, 8 * KiB);
  assert.equal(shapeFor(16 * TiB, 'bits').unit, 64 * KiB);
  for (const size of [4096, 1 * GiB, 1 * TiB, 100 * TiB])
    assert.ok(shapeFor(size, 'bits').pages * pageSize <= 64 * MiB + 40 * KiB, `${size}`);
});

test('bytes cost more, so their unit is coarser', () => {
  assert.equal(shapeFor(128 * GiB, 'bytes').unit, 4 * KiB);
  assert.equal(shapeFor(1 * TiB, 'bytes').unit, 32 * KiB);
  assert.ok(shapeFor(1 * TiB, 'bytes').pages * pageSize <= 64 * MiB);
});

test('the parts of a map follow each other without gaps', () => {
  const shape = shapeOf(1 * GiB, 'bits', 4096);
  // 262144 units: 8 pages of bits; 64 groups: 1 page; 8 pages taken.
  assert.deepEqual([shape.fineAt, shape.coarseAt, shape.takenAt, shape.pages], [1, 9, 10, 18]);
});

test('device numbers have 20 bits of minor and no sign', () => {
  assert.equal(kernelDevice(8, 1), 0x800001);
  assert.equal(kernelDevice(4095, 0), 0xfff00000);
});

test('a description can be read again; another layout and damage are reported', () => {
  const page = new ArrayBuffer(pageSize);
  assert.match(readDescription(page) as string, /begins with 0x0, not 0x544b4244/);
  writeDescription(page, { layout: layoutVersion });
  assert.deepEqual(readDescription(page), { layout: layoutVersion });
  writeDescription(page, { layout: 1 });
  assert.match(
    readDescription(page) as string,
    /layout 1, of another version of the agent, and this one has 3/,
  );
  writeDescription(page, { layout: layoutVersion });
  new Uint8Array(page)[268] = 0x21;
  assert.match(readDescription(page) as string, /no JSON/);
  const long = { layout: layoutVersion, text: 'x'.repeat(pageSize) };
  assert.throws(() => writeDescription(page, long), /does not fit/);
});
