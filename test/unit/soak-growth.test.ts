import assert from 'node:assert/strict';
import { test } from 'node:test';
import { growthOf } from '../soak/growth.ts';

const rows = (values: readonly number[], absolute: number, share = 0) =>
  growthOf(
    values.map((memory) => ({ memory })),
    { memory: { absolute, share } },
  );

test('finds growth from the second third to the last; the first third and outliers do not count', () => {
  const steady = [10, 50, 100, 100, 101, 100, 99, 100, 500];
  assert.deepEqual(
    rows(steady, 0).map(({ first, second, last, most, grew }) => ({ first, second, last, most, grew })),
    [{ first: 50, second: 100, last: 100, most: 500, grew: false }],
  );
  const growing = [1, 2, 3, 4, 5, 6, 7, 8, 9];
  assert.equal(rows(growing, 2)[0]!.grew, true);
  assert.equal(rows(growing, 3)[0]!.grew, false);
  assert.equal(rows(growing, 0, 0.6)[0]!.grew, false);
});

test('too few samples, or a sample without a name, prove nothing', () => {
  assert.throws(() => rows([1, 2, 3, 4, 5], 0), /6 are the least/);
  assert.throws(
    () => growthOf(Array<object>(6).fill({}) as Record<string, number>[], { x: { absolute: 0, share: 0 } }),
    /has no x/,
  );
});
