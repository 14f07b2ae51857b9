import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { Clock } from '../../base/clock.ts';
import { AgentError } from '../../base/errors.ts';
import { connectWithBackoff } from './backoff.ts';
import type { NbdTarget } from './target.ts';
import { parseNbdUri } from './uri.ts';

const address = parseNbdUri('nbd://away');

function heldClock(): Clock & { at: number } {
  const clock = {
    at: 0,
    now: () => clock.at,
    monotonic: () => clock.at,
    sleep: (ms: number, signal?: AbortSignal) => {
      signal?.throwIfAborted();
      clock.at += ms;
      return Promise.resolve();
    },
  };
  return clock;
}

const away = (): Promise<NbdTarget> => Promise.reject(new AgentError('TARGET_UNREACHABLE', 'nobody there'));

test('pauses double up to a ceiling, and end at the deadline', async () => {
  const clock = heldClock();
  const pauses: number[] = [];
  await assert.rejects(
    connectWithBackoff(address, {
      deadlineMs: 30_000,
      clock,
      connect: away,
      random: () => 1,
      onAttempt: (_attempt, _error, pause) => pauses.push(pause),
    }),
    { code: 'TARGET_UNREACHABLE' },
  );
  assert.deepEqual(pauses.slice(0, 8), [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
  assert.ok(clock.at < 30_000 && clock.at > 20_000);
});

test('an error that a retry cannot cure is thrown at once', async () => {
  let attempts = 0;
  const refused = (): Promise<NbdTarget> => {
    attempts++;
    return Promise.reject(new AgentError('NBD_EXPORT_UNKNOWN', 'no such export'));
  };
  await assert.rejects(connectWithBackoff(address, { deadlineMs: 1000, connect: refused }), {
    code: 'NBD_EXPORT_UNKNOWN',
  });
  assert.equal(attempts, 1);
});

test('a retry reaches a server that has returned', async () => {
  let attempts = 0;
  const target = Object.create(null) as NbdTarget;
  const found = await connectWithBackoff(address, {
    deadlineMs: 60_000,
    clock: heldClock(),
    connect: () => (++attempts < 5 ? away() : Promise.resolve(target)),
  });
  assert.equal(found, target);
  assert.equal(attempts, 5);
});

test('a cancellation ends the waiting', async () => {
  const cancel = new AbortController();
  await assert.rejects(
    connectWithBackoff(address, {
      deadlineMs: 60_000,
      connect: away,
      signal: cancel.signal,
      onAttempt: () => cancel.abort(),
    }),
    { code: 'CANCELLED' },
  );
});
