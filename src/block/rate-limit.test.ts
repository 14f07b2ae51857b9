import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Clock } from '../base/clock.ts';
import { RateLimit } from './rate-limit.ts';

/** A clock that jumps to the end of each sleep. */
function heldClock(): Clock & { time: number } {
  const clock = {
    time: 0,
    now: () => clock.time,
    monotonic: () => clock.time,
    sleep: (ms: number) => {
      clock.time += ms;
      return Promise.resolve();
    },
  };
  return clock;
}

test('a rate limit takes the time that the bytes need at this rate, except for the burst', async () => {
  const clock = heldClock();
  const limit = new RateLimit(clock, 1000);
  for (let i = 0; i < 10; i++) await limit.take(500);
  assert.equal(clock.time, 4900);
  clock.time += 1e6;
  await limit.take(500);
  assert.equal(clock.time, 4900 + 1e6 + 400);
});

test('no window of time has more bytes than rate and burst allow', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.record({ bytes: fc.nat(5000), idle: fc.nat(3000) })), async (steps) => {
      const clock = heldClock();
      const limit = new RateLimit(clock, 1000);
      let sent = 0;
      for (const { bytes, idle } of steps) {
        clock.time += idle;
        await limit.take(bytes);
        sent += bytes;
        assert.ok(sent <= clock.time + 100 + 1e-6);
      }
    }),
  );
});
