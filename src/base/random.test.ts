import assert from 'node:assert/strict';
import { test } from 'node:test';
import { repeatNumbers } from '../../test/helpers/repeated-numbers.ts';
import { freshBytes, freshUuid, randomness } from './random.ts';

test('random bytes of any length differ from call to call', () => {
  for (const size of [0, 1, 12, 16, 64, 65, 1000]) {
    assert.equal(freshBytes(size).length, size);
    if (size >= 12) assert.notDeepEqual(freshBytes(size), freshBytes(size));
  }
});

test('each call reads the kernel, and the result depends on the bytes of the kernel', (t) => {
  const { kernel } = randomness;
  let asked = 0;
  t.mock.method(randomness, 'moment', () => 'the same');
  t.mock.method(randomness, 'kernel', (size: number) => {
    asked++;
    return kernel(size);
  });
  assert.notDeepEqual(freshBytes(32), freshBytes(32));
  assert.equal(asked, 2);
});

test('if the kernel repeats its bytes, the clock and the process make the result differ', (t) => {
  t.mock.method(randomness, 'kernel', (size: number) => Buffer.alloc(size, 7));
  assert.notDeepEqual(freshBytes(32), freshBytes(32));
});

test('if everything else repeats, the content makes the result differ', (t) => {
  repeatNumbers(t);
  const [a, b] = [Buffer.from('a'), Buffer.from('b')];
  assert.deepEqual(freshBytes(32, a), freshBytes(32, a));
  assert.notDeepEqual(freshBytes(32, a), freshBytes(32, b));
  assert.notDeepEqual(freshBytes(32, a, b), freshBytes(32, Buffer.from('ab')));
});

test('a UUID has version 4', () => {
  for (let round = 0; round < 100; round++)
    assert.match(freshUuid(), /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
});
