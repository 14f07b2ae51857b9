import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Admission } from './admission.ts';

test('silent clients are dropped for others, the oldest of the address with the most clients first', () => {
  const admission = new Admission<number>(2, 4);
  for (const id of [1, 2, 3]) assert.deepEqual(admission.arrive(id, '10.0.0.1'), { drop: undefined });
  assert.deepEqual(admission.arrive(4, '10.0.0.2'), { drop: undefined });
  assert.deepEqual(admission.arrive(5, '10.0.0.3'), { drop: 1 });
  assert.deepEqual(admission.arrive(6, '10.0.0.1'), { drop: 2 });
  assert.equal(admission.enter(1), false, 'was dropped');
  assert.equal(admission.enter(5), true);
  assert.deepEqual(admission.arrive(7, '10.0.0.4'), { drop: undefined });
});

test('clients that have chosen an export have their own limit', () => {
  const admission = new Admission<number>(2, 4);
  for (const id of [1, 2, 3]) admission.arrive(id, '');
  assert.equal(admission.enter(1), true);
  assert.equal(admission.enter(2), true);
  assert.equal(admission.enter(3), false);
  assert.equal(admission.arrive(4, ''), 'refused');
  admission.left(1);
  assert.deepEqual(admission.arrive(5, ''), { drop: undefined });
  assert.equal(admission.enter(5), true);
});

test('addresses of one IPv6 /64 network count as one address', () => {
  const admission = new Admission<number>(2, 2);
  admission.arrive(1, '2001:db8:1:2::1');
  admission.arrive(2, '2001:db8:1:3::1');
  assert.deepEqual(admission.arrive(3, '2001:db8:1:2::2'), { drop: 1 });
  assert.deepEqual(admission.arrive(4, '2001:db8:1:2::3'), { drop: 2 });
  assert.deepEqual(admission.arrive(5, '2001:db8:9:9::3'), { drop: 3 });
});
