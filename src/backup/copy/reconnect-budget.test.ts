import assert from 'node:assert/strict';
import test from 'node:test';
import type { Clock } from '../../base/clock.ts';
import { ReconnectBudget, fruitlessMost } from './reconnect-budget.ts';

function heldClock(): Clock & { at: number } {
  const clock = { at: 0, now: () => 0, monotonic: () => clock.at, sleep: () => Promise.resolve() };
  return clock;
}

test('after the first loss, the job waits for the full time, without a pause', () => {
  assert.deepEqual(new ReconnectBudget(60_000, heldClock()).lost(), { pauseMs: 0, waitMs: 60_000 });
  assert.deepEqual(new ReconnectBudget(0, heldClock()).lost(), { pauseMs: 0, waitMs: 0 });
});

test('a server that drops every connection at once is given up when the time is over', () => {
  const clock = heldClock();
  const patience = new ReconnectBudget(10_000, clock);
  let losses = 0;
  for (let wait = patience.lost(); wait !== undefined; wait = patience.lost()) {
    clock.at += wait.pauseMs;
    patience.connected();
    losses++;
  }
  assert.ok(clock.at <= 10_000);
  assert.ok(losses >= 5 && losses < 12, `${losses} tries`);
});

test('after a connection that held, the next loss counts as a first one', () => {
  const clock = heldClock();
  const patience = new ReconnectBudget(1000, clock);
  for (let i = 0; i < 5; i++) {
    assert.deepEqual(patience.lost(), { pauseMs: 0, waitMs: 1000 });
    patience.connected();
    clock.at += 6000;
  }
});

for (const heldMs of [5000, 6000, 3_600_000])
  test(`a server whose connections hold for ${heldMs} ms and never progress is given up`, () => {
    const clock = heldClock();
    const patience = new ReconnectBudget(60_000, clock);
    let losses = 0;
    while (patience.lost() !== undefined) {
      assert.ok(++losses <= fruitlessMost, 'it goes on for ever');
      patience.connected();
      clock.at += heldMs;
    }
    assert.equal(losses, fruitlessMost);
  });

test('a server that alternately holds and drops connections, without progress, is given up', () => {
  const clock = heldClock();
  const patience = new ReconnectBudget(60_000, clock);
  let losses = 0;
  for (let wait = patience.lost(); wait !== undefined; wait = patience.lost()) {
    assert.ok(++losses < 1000, 'it goes on for ever');
    clock.at += wait.pauseMs;
    patience.connected();
    clock.at += losses % 2 === 0 ? 5000 : 10;
  }
});

test('progress cancels every earlier loss', () => {
  const clock = heldClock();
  const patience = new ReconnectBudget(1000, clock);
  for (let i = 0; i < 5 * fruitlessMost; i++) {
    assert.notEqual(patience.lost(), undefined);
    patience.connected();
    clock.at += 6000;
    patience.progressed();
  }
});
