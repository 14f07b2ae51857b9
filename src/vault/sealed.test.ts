import assert from 'node:assert/strict';
import { createDecipheriv } from 'node:crypto';
import { test } from 'node:test';
import { zstdDecompressSync } from 'node:zlib';
import fc from 'fast-check';
import { repeatNumbers } from '../../test/helpers/repeated-numbers.ts';
import { AgentError } from '../base/errors.ts';
import { openDocument, sealDocument } from './sealed.ts';
import { Secrets } from './secrets.ts';

const secrets = Secrets.from(Buffer.alloc(32, 1), 'ab'.repeat(16));
const key = 'points/0123456789abcdef0123456789abcdef';
const document = { format: 1, text: 'a recovery point', list: [1, 2, 3] };

function isDamage(error: unknown): boolean {
  return error instanceof AgentError && error.code === 'VAULT_DAMAGED';
}

test('any document is read back unchanged', () => {
  fc.assert(
    fc.property(fc.jsonValue(), (value) => {
      const again: unknown = JSON.parse(JSON.stringify(value));
      assert.deepEqual(openDocument(secrets, key, sealDocument(secrets, key, value)), again);
    }),
    { numRuns: 200 },
  );
});

test('the layout is as specified', () => {
  const sealed = sealDocument(secrets, key, document);
  const decipher = createDecipheriv('aes-256-gcm', secrets.documentKey, sealed.subarray(0, 12));
  decipher.setAAD(Buffer.from(key));
  decipher.setAuthTag(sealed.subarray(-16));
  const compressed = Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]);
  assert.deepEqual(JSON.parse(zstdDecompressSync(compressed).toString()), document);
});

test('two sealings of one document have different nonces', () => {
  const nonces = new Set<string>();
  for (let i = 0; i < 100; i++)
    nonces.add(sealDocument(secrets, key, document).subarray(0, 12).toString('hex'));
  assert.equal(nonces.size, 100);
});

test('if random numbers repeat, different content still has a different nonce', (t) => {
  repeatNumbers(t);
  const nonceOf = (of: string, content: unknown): string =>
    sealDocument(secrets, of, content).subarray(0, 12).toString('hex');
  assert.equal(nonceOf(key, document), nonceOf(key, document));
  assert.notEqual(nonceOf(key, document), nonceOf(key, { ...document, more: 1 }));
  assert.notEqual(nonceOf(key, document), nonceOf(`${key.slice(0, -1)}0`, document));
});

test('a flipped bit, a missing byte or an additional byte is damage', () => {
  const sealed = sealDocument(secrets, key, document);
  for (let at = 0; at < sealed.length; at++)
    for (let bit = 0; bit < 8; bit++) {
      const flipped = Buffer.from(sealed);
      flipped[at]! ^= 1 << bit;
      assert.throws(() => openDocument(secrets, key, flipped), isDamage, `byte ${at}, bit ${bit}`);
    }
  for (let length = 0; length < sealed.length; length++) {
    assert.throws(() => openDocument(secrets, key, sealed.subarray(0, length)), isDamage);
    assert.throws(() => openDocument(secrets, key, sealed.subarray(sealed.length - length)), isDamage);
  }
  assert.throws(() => openDocument(secrets, key, Buffer.concat([sealed, Buffer.alloc(1)])), isDamage);
});

test('an object cannot replace another one of this vault or another vault', () => {
  const sealed = sealDocument(secrets, key, document);
  assert.throws(() => openDocument(secrets, key.replace('points', 'writers'), sealed), isDamage);
  assert.throws(() => openDocument(secrets, key.replace('0123', '0124'), sealed), isDamage);
  const sameMaster = Secrets.from(Buffer.alloc(32, 1), 'ac'.repeat(16));
  const sameId = Secrets.from(Buffer.alloc(32, 2), 'ab'.repeat(16));
  for (const other of [sameMaster, sameId]) assert.throws(() => openDocument(other, key, sealed), isDamage);
});
