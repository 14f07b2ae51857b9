import assert from 'node:assert/strict';
import { createHmac } from 'node:crypto';
import { test } from 'node:test';
import { Namer, isZeroName, zeroName } from './names.ts';
import { Secrets } from './secrets.ts';

const master = Buffer.from(Array.from({ length: 32 }, (_, i) => i));
const vaultId = '00112233445566778899aabbccddeeff';

/** HKDF of RFC 5869 for 32 bytes, by its two HMACs. */
function hkdf(key: Buffer, salt: Buffer, info: string): Buffer {
  const extracted = createHmac('sha256', salt).update(key).digest();
  return createHmac('sha256', extracted)
    .update(info)
    .update(Buffer.from([1]))
    .digest();
}

test('the keys are derived as specified', () => {
  const secrets = Secrets.from(master, vaultId);
  const derive = (use: string): Buffer => hkdf(master, Buffer.from(vaultId, 'hex'), `dattod vault 1 ${use}`);
  assert.deepEqual(secrets.chunkNameKey, derive('chunk names'));
  assert.deepEqual(secrets.pageNameKey, derive('page names'));
  assert.deepEqual(secrets.documentKey, derive('documents'));
  const pack = 'f0'.repeat(16);
  assert.deepEqual(
    secrets.packKey(pack),
    hkdf(derive('packs'), Buffer.from(pack, 'hex'), 'dattod vault 1 pack'),
  );
  assert.deepEqual(
    secrets.configMac('text'),
    createHmac('sha256', derive('vault.json')).update('text').digest(),
  );
});

test('a name is keyed BLAKE3', () => {
  // From test_vectors.json of the BLAKE3 project: the input counts up modulo 251.
  const namer = new Namer(Buffer.from('whats the Elvish word for friend'));
  const input = Uint8Array.from({ length: 1025 }, (_, i) => i % 251);
  assert.equal(
    namer.name(input.subarray(0, 1)).toString('hex'),
    '6d7878dfff2f485635d39013278ae14f1454b8c0a3a2d34bc1ab38228a80c95b',
  );
  assert.equal(
    namer.name(input.subarray(0, 0)).toString('hex'),
    '92b2b75604ed3c761f9d6f62392c8a9227ad0ea3f09573e783f1498a4ed60d26',
  );
  const kept = namer.name(input);
  const copy = Buffer.from(kept);
  namer.name(input.subarray(1));
  assert.deepEqual(kept, copy);
});

test('only 32 zeros are the name of zeros', () => {
  assert.ok(isZeroName(zeroName));
  assert.ok(isZeroName(new Uint8Array(32)));
  for (let at = 0; at < 32; at++) {
    const name = Buffer.alloc(32);
    name[at] = 1;
    assert.ok(!isZeroName(name));
  }
  assert.ok(!isZeroName(Buffer.alloc(31)));
});
