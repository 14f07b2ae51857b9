import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { within } from './patience.ts';

function stall(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test('work that takes longer, or fails, gives undefined', async () => {
  const { promise } = Promise.withResolvers<number>();
  assert.equal(await within(20, promise), undefined);
  const failing = Promise.reject<number>(new Error('no'));
  assert.equal(await within(1000, failing), undefined);
  assert.equal(await within(1000, Promise.resolve(1)), 1);
});

test('time in which the process did not run does not count', async () => {
  // The answer is due long before the patience ends, but both are late together.
  const answer = within(500, sleep(50, 'answer'));
  await sleep(1);
  stall(800);
  assert.equal(await answer, 'answer');
  // Also if the answer needs a few more turns of the event loop.
  const later = within(
    500,
    sleep(50)
      .then(() => sleep(50))
      .then(() => 'later'),
  );
  await sleep(1);
  stall(800);
  assert.equal(await later, 'later');
});
