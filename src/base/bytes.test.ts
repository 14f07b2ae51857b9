import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { alignDown, alignUp, formatBytes, isZero, parseBytes } from './bytes.ts';

test('sizes are read as people write them', () => {
  assert.equal(parseBytes('4096'), 4096);
  assert.equal(parseBytes('64K'), 65536);
  assert.equal(parseBytes('64KiB'), 65536);
  assert.equal(parseBytes('1.5 GB'), 1610612736);
  for (const bad of ['', 'x', '-1', '1X', '1e3', '99999999P'])
    assert.throws(() => parseBytes(bad, '--rate'), /--rate ".*" is not a number of bytes/);
});

test('sizes are written with two decimals from KiB on', () => {
  assert.equal(formatBytes(0), '0 B');
  assert.equal(formatBytes(1023), '1023 B');
  assert.equal(formatBytes(1536), '1.50 KiB');
  assert.equal(formatBytes(3 * 1024 ** 4), '3.00 TiB');
});

test('one byte that is not zero is found at any place', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200_000 }), fc.nat(), (length, where) => {
      const data = new Uint8Array(length);
      assert.ok(isZero(data));
      data[where % length] = 1;
      assert.ok(!isZero(data));
    }),
    { numRuns: 50 },
  );
});

test('alignment rounds both ways', () => {
  assert.equal(alignDown(4097, 4096), 4096);
  assert.equal(alignUp(4097, 4096), 8192);
  assert.equal(alignUp(4096, 4096), 4096);
});
