import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { boundedCall } from './bounded-call.ts';
import { afterOwnTime } from './patience.ts';

function stall(ms: number): void {
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, ms);
}

test('it calls back once, no earlier than the time says, unless it is cancelled', async () => {
  const calls: number[] = [];
  const start = performance.now();
  afterOwnTime(150, () => calls.push(performance.now() - start));
  afterOwnTime(10, () => calls.push(NaN))();
  // Its turns begin later, so when it calls back a second call of the first one would have come.
  await new Promise<void>((resolve) => afterOwnTime(400, resolve));
  assert.equal(calls.length, 1);
  assert.ok((calls[0] ?? 0) >= 149, String(calls[0]));
});

test('a stall of the process does not make a good answer a late one', async () => {
  // Two turns of the event loop after the stall: by the clock, the limit is over before the answer is heard.
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

test('what does not answer is given up', async () => {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  await assert.rejects(
    boundedCall('answering', '/dev/silent', () => promise, { limitMs: 20 }),
    { code: 'NO_ANSWER' },
  );
  resolve(undefined);
});
