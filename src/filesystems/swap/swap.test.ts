import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Extent } from '../../base/extents.ts';
import { probeSwap, readSwapUsedMap } from './swap.ts';

const size = 64 * 4096 + 1024;

function area(magic: string, fields: Record<number, number> = {}): Buffer {
  const bytes = Buffer.alloc(size);
  for (const [offset, value] of Object.entries({ 1024: 1, 1028: 63, ...fields }))
    bytes.writeUInt32LE(value, Number(offset));
  bytes.write('swaplabel', 1052);
  bytes.write(magic, 4086, 'latin1');
  return bytes;
}

async function used(bytes: Buffer): Promise<{ everything: boolean; extents: Extent[] }> {
  const map = await readSwapUsedMap((at, length) => Promise.resolve(bytes.subarray(at, at + length)), size);
  const extents: Extent[] = [];
  for await (const batch of map.extents) extents.push(...batch);
  return { everything: map.everything, extents };
}

test('the header page and the tail of the device are used', async () => {
  assert.deepEqual(await used(area('SWAPSPACE2')), {
    everything: false,
    extents: [
      { offset: 0, length: 4096 },
      { offset: 64 * 4096, length: 1024 },
    ],
  });
});

test('a hibernated system, an old or a foreign format makes everything used', async () => {
  for (const magic of ['S1SUSPEND', 'ULSUSPEND', 'LINHIB0001', 'SWAP-SPACE'])
    assert.equal((await used(area(magic))).everything, true, magic);
  assert.equal((await used(area('SWAPSPACE2', { 1024: 0x01000000 }))).everything, true);
  assert.equal((await used(area('SWAPSPACE2', { 1028: 64 }))).everything, true, 'longer than its device');
});

test('the identity of a swap area', async () => {
  const probe = (bytes: Buffer) =>
    probeSwap((at, length) => Promise.resolve(bytes.subarray(at, at + length)), size);
  assert.equal((await probe(area('SWAPSPACE2')))?.label, 'swaplabel');
  assert.equal((await probe(area('S2SUSPEND')))?.type, 'swsuspend');
  assert.equal(await probe(area('nothing')), undefined);
});
