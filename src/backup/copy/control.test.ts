import assert from 'node:assert/strict';
import test from 'node:test';
import { Control } from './control.ts';

test('threads see the changes of other threads through the shared memory', () => {
  const first = new Control(2);
  const second = new Control(2, first.buffer);
  assert.equal(first.takeItem(), 0);
  assert.equal(second.takeItem(), 1);
  first.add(0, 'sent', 10);
  second.add(1, 'sent', 5);
  second.add(1, 'readMs', 1.5);
  assert.equal(first.total().sent, 15);
  assert.equal(first.total().readMs, 1.5);
  assert.equal(first.stopped, false);
  second.stopped = true;
  assert.equal(first.stopped, true);
  first.rewind();
  assert.equal(second.takeItem(), 0);
});

test('with a rate limit, the waiting time adds up over all threads', () => {
  const control = new Control(2);
  const other = new Control(2, control.buffer);
  // 1 MB at 1 MB/s, in ten bookings: the last begins 900 ms after the first, less the burst of 100 ms.
  let wait = 0;
  for (let i = 0; i < 5; i++) {
    control.book(100_000, 1e6);
    wait = other.book(100_000, 1e6);
  }
  assert.ok(wait > 700 && wait <= 900, `waited ${wait} ms`);
});
