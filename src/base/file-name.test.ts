import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { decodeName, filePath, shownName } from './file-name.ts';

test('any bytes are kept, also through JSON, and valid UTF-8 is unchanged text', () => {
  const bytes = fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc
      .array(fc.constantFrom(0x61, 0xe4, 0xff, 0xe2, 0x82, 0xac, 0xf0, 0x9f, 0x98, 0x80, 0xed, 0xb2))
      .map((list) => Uint8Array.from(list)),
  );
  fc.assert(
    fc.property(bytes, (name) => {
      const text = JSON.parse(JSON.stringify(decodeName(name))) as string;
      assert.deepEqual(Buffer.from(filePath(text)), Buffer.from(name));
      assert.equal(shownName(text), Buffer.from(name).toString('utf8'));
    }),
  );
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => assert.equal(decodeName(Buffer.from(text)), text)),
  );
});
