import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { nameLength } from '../names.ts';
import { encodePage, pageEntries, parsePage } from './page.ts';

const name = Buffer.alloc(nameLength, 5);
const damaged = { code: 'VAULT_DAMAGED' };

/** Names of a page: each is all-zero or random. */
const names = fc
  .array(fc.integer({ min: 0, max: 3 }), { minLength: 1, maxLength: pageEntries })
  .map((values) => Buffer.concat(values.map((value) => Buffer.alloc(nameLength, value))));

test('pages are read back without zeros at their end', () => {
  fc.assert(
    fc.property(names, fc.integer({ min: 0, max: 3 }), (all, level) => {
      const page = encodePage(level, all);
      if (page === undefined) {
        assert.ok(all.every((byte) => byte === 0));
        return;
      }
      const back = parsePage(page, level, name);
      assert.ok(back.equals(all.subarray(0, back.length)));
      assert.ok(all.subarray(back.length).every((byte) => byte === 0));
      const longer = encodePage(level, Buffer.concat([back, Buffer.alloc(nameLength * 2)]));
      assert.deepEqual(longer, page);
    }),
  );
});

test('the layout is as in docs/formats/vault.md', () => {
  const page = encodePage(
    2,
    Buffer.concat([Buffer.alloc(32, 0xaa), Buffer.alloc(32), Buffer.alloc(32, 0xbb)]),
  );
  assert.equal(
    page?.toString('hex'),
    `0200000003000000${'aa'.repeat(32)}${'00'.repeat(32)}${'bb'.repeat(32)}`,
  );
});

test('invalid pages are refused', () => {
  const page = encodePage(0, Buffer.alloc(64, 1))!;
  assert.throws(() => parsePage(page, 1, name), damaged);
  assert.throws(() => parsePage(page, 0, name, 1), damaged);
  assert.throws(() => parsePage(page.subarray(0, -1), 0, name), damaged);
  assert.throws(() => parsePage(Buffer.alloc(0), 0, name), damaged);
  const zeroEnd = Buffer.from(page).fill(0, 40);
  assert.throws(() => parsePage(zeroEnd, 0, name), damaged);
  const marked = Buffer.from(page).fill(1, 1, 2);
  assert.throws(() => parsePage(marked, 0, name), damaged);
});
