import assert from 'node:assert/strict';
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto';
import test from 'node:test';
import fc from 'fast-check';
import { Aes256Gcm, gcmTagLength, hasDirectGcm } from './aes-gcm.ts';

test('the runtime of this package exports its OpenSSL', () => {
  assert.ok(hasDirectGcm);
});

test('a published vector: NIST SP 800-38D, GCM specification test case 16', () => {
  const key = Buffer.from('feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308', 'hex');
  const nonce = Buffer.from('cafebabefacedbaddecaf888', 'hex');
  const additional = Buffer.from('feedfacedeadbeeffeedfacedeadbeefabaddad2', 'hex');
  const plain = Buffer.from(
    'd9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525' +
      'b16aedf5aa0de657ba637b39',
    'hex',
  );
  const expected =
    '522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838' +
    'c5f61e6393ba7a0abcc9f66276fc6ece0f4e1768cddf8853bb2d551b';
  for (const direct of [true, false]) {
    const into = Buffer.alloc(plain.length + gcmTagLength);
    new Aes256Gcm(key, { direct }).seal(nonce, additional, plain, into);
    assert.equal(into.toString('hex'), expected);
  }
});

test('direct calls and node:crypto seal to the same bytes and open each other, with one key and many nonces', () => {
  const key = randomBytes(32);
  const ways = [true, false].map((direct) => new Aes256Gcm(key, { direct }));
  const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength, size: 'max' });
  const nonces = fc.uint8Array({ minLength: 12, maxLength: 12 });
  fc.assert(
    fc.property(nonces, bytes(40), bytes(5000), (nonce, additional, data) => {
      const cipher = createCipheriv('aes-256-gcm', key, nonce);
      cipher.setAAD(additional);
      const expected = Buffer.concat([cipher.update(data), cipher.final(), cipher.getAuthTag()]);
      for (const way of ways) {
        const into = Buffer.alloc(expected.length + 5, 0xee);
        way.seal(nonce, additional, data, into);
        assert.ok(into.subarray(0, expected.length).equals(expected));
        assert.ok(into.subarray(expected.length).equals(Buffer.alloc(5, 0xee)));
        const plain = Buffer.alloc(data.length + 5, 0xee);
        assert.ok(way.open(nonce, additional, expected, plain));
        assert.ok(plain.equals(Buffer.concat([data, Buffer.alloc(5, 0xee)])));
      }
    }),
  );
});

test('any altered byte is detected, and the next message opens again', () => {
  for (const direct of [true, false]) {
    const gcm = new Aes256Gcm(randomBytes(32), { direct });
    const [nonce, additional, data] = [randomBytes(12), randomBytes(32), randomBytes(100)];
    const sealed = Buffer.alloc(116);
    gcm.seal(nonce, additional, data, sealed);
    const into = Buffer.alloc(100);
    for (const what of [nonce, additional, sealed])
      for (let at = 0; at < what.length; at++) {
        what[at]! ^= 1 << (at & 7);
        assert.ok(!gcm.open(nonce, additional, sealed, into));
        what[at]! ^= 1 << (at & 7);
      }
    assert.ok(!gcm.open(nonce, additional, sealed.subarray(0, 115), into));
    assert.ok(!gcm.open(nonce, additional, sealed.subarray(0, 15), into));
    assert.ok(gcm.open(nonce, additional, sealed, into) && into.equals(data));
    assert.throws(() => gcm.open(nonce, additional, sealed, Buffer.alloc(99)), RangeError);
    assert.throws(() => gcm.seal(nonce, additional, data, Buffer.alloc(115)), RangeError);
    assert.throws(() => gcm.seal(nonce.subarray(1), additional, data, sealed), RangeError);
  }
});

test('empty data is sealed too', () => {
  const key = Buffer.alloc(32, 1);
  const sealed = Buffer.alloc(16);
  new Aes256Gcm(key).seal(Buffer.alloc(12), Buffer.alloc(0), Buffer.alloc(0), sealed);
  const decipher = createDecipheriv('aes-256-gcm', key, Buffer.alloc(12));
  decipher.setAuthTag(sealed);
  assert.equal(decipher.final().length, 0);
  assert.ok(new Aes256Gcm(key).open(Buffer.alloc(12), Buffer.alloc(0), sealed, Buffer.alloc(0)));
});
