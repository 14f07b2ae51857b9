import assert from 'node:assert/strict';
import { test } from 'node:test';
import { guidText, labelText, uuidText } from './uuid.ts';

test('UUIDs in either byte order, none if all bytes are zero', () => {
  const bytes = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
  assert.equal(uuidText(bytes), '00112233-4455-6677-8899-aabbccddeeff');
  assert.equal(guidText(bytes), '33221100-5544-7766-8899-aabbccddeeff');
  assert.equal(bytes.toString('hex'), '00112233445566778899aabbccddeeff', 'the input stays as it is');
  assert.equal(uuidText(Buffer.alloc(16)), undefined);
});

test('labels end at the first zero byte, and lose white space at the end', () => {
  assert.equal(labelText(Buffer.from('data \0rest')), 'data');
  assert.equal(labelText(Buffer.from('größe')), 'größe');
  assert.equal(labelText(Buffer.alloc(16)), undefined);
});
