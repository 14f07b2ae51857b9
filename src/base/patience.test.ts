import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { boundedCall } from './bounded-call.ts';
import { afterOwnTime } from './patience.ts';

function stall(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test('the callback runs once, not before the time is over, and not if it is cancelled', async () => {
  const calls: number[] = [];
  const start = performance.now();
  afterOwnTime(150, () => calls.push(performance.now() - start));
  afterOwnTime(10, () => calls.push(NaN))();
  // This timer starts later. When it calls back, a second call of the first timer would have happened already.
  await new Promise<void>((resolve) => afterOwnTime(400, resolve));
  assert.equal(calls.length, 1);
  assert.ok((calls[0] ?? 0) >= 149, String(calls[0]));
});

test('an answer is not late if only the process was stalled', async () => {
  // The answer comes two turns of the event loop after the stall. By the clock, the limit is over before that.
  const answer = boundedCall(
    'answering',
    '/dev/test',
    () =>
      sleep(50)
        .then(() => sleep(50))
        .then(() => 'answer'),
    { limitMs: 500 },
  );
  await sleep(1);
  stall(900);
  assert.equal(await answer, 'answer');
});

test('the wait ends if no answer comes', async () => {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  await assert.rejects(
    boundedCall('answering', '/dev/silent', () => promise, { limitMs: 20 }),
    { code: 'NO_ANSWER' },
  );
  resolve(undefined);
});
