import assert from 'node:assert/strict';
import test from 'node:test';
import type { Clock } from '../../base/clock.ts';
import { Patience } from './patience.ts';

function heldClock(): Clock & { at: number } {
  const clock = { at: 0, now: () => 0, monotonic: () => clock.at, sleep: () => Promise.resolve() };
  return clock;
}

test('the first loss is waited out in full, without a pause', () => {
  assert.deepEqual(new Patience(60_000, heldClock()).lost(), { pauseMs: 0, waitMs: 60_000 });
  assert.deepEqual(new Patience(0, heldClock()).lost(), { pauseMs: 0, waitMs: 0 });
});

test('a server that drops every connection at once is given up when the time is over', () => {
  const clock = heldClock();
  const patience = new Patience(10_000, clock);
  let losses = 0;
  for (let wait = patience.lost(); wait !== undefined; wait = patience.lost()) {
    clock.at += wait.pauseMs;
    patience.connected();
    losses++;
  }
  assert.ok(clock.at <= 10_000);
  assert.ok(losses >= 5 && losses < 12, `${losses} tries`);
});

test('a connection that held makes the next loss a first one', () => {
  const clock = heldClock();
  const patience = new Patience(1000, clock);
  for (let i = 0; i < 5; i++) {
    assert.deepEqual(patience.lost(), { pauseMs: 0, waitMs: 1000 });
    patience.connected();
    clock.at += 6000;
  }
});
