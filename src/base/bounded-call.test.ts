import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { boundedCall, isNoAnswer, mostCalls } from './bounded-call.ts';

/** A call that returns only when the test allows it. */
function held(): { call: () => Promise<string>; end: () => void; started: () => number } {
  let started = 0;
  let end: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => {
    end = resolve;
  });
  return {
    call: async () => {
      started++;
      await ended;
      return 'returned';
    },
    end,
    started: () => started,
  };
}

test('a call that returns in time gives its result, and a call that fails gives its error', async () => {
  assert.equal(await boundedCall('stat', '/a', () => Promise.resolve(7)), 7);
  const failure = new Error('ENOENT');
  await assert.rejects(
    boundedCall('stat', '/a', () => Promise.reject(failure)),
    failure,
  );
  assert.equal(await boundedCall('stat', '/a', () => Promise.resolve(8)), 8, 'a failed call frees its path');
});

test('the caller of a call that hangs gets an error in time, with the path in the message', async () => {
  const hung = held();
  await assert.rejects(boundedCall('statfs', '/mnt/nfs', hung.call, { limitMs: 20 }), (thrown: Error) => {
    assert.ok(isNoAnswer(thrown));
    assert.match(thrown.message, /\/mnt\/nfs does not answer: statfs took longer than 20 ms/);
    return true;
  });
  hung.end();
});

test('a path that hangs takes one thread, even if it is used often, and works again after the hang', async () => {
  const hung = held();
  const ask = () => boundedCall('stat', '/mnt/hung', hung.call, { limitMs: 20 });
  const outcomes = await Promise.allSettled([ask(), ask(), ask()]);
  assert.ok(outcomes.every((each) => each.status === 'rejected' && isNoAnswer(each.reason)));
  await assert.rejects(boundedCall('stat', '/mnt/hung', hung.call), isNoAnswer, 'at once, not after 5 s');
  assert.equal(hung.started(), 1);
  assert.equal(await boundedCall('stat', '/mnt/other', () => Promise.resolve('well')), 'well');
  hung.end();
  await turn();
  assert.equal(await boundedCall('stat', '/mnt/hung', () => Promise.resolve('again')), 'again');
});

test('calls that hang never take more threads than the limit', async () => {
  const calls = Array.from({ length: mostCalls + 10 }, held);
  const asked = calls.map((each, n) => boundedCall('stat', `/hung/${n}`, each.call, { limitMs: 30 }));
  const outcomes = await Promise.allSettled(asked);
  assert.ok(outcomes.every((each) => each.status === 'rejected' && isNoAnswer(each.reason)));
  assert.equal(
    calls.reduce((sum, each) => sum + each.started(), 0),
    mostCalls,
  );
  for (const each of calls) each.end();
  const after = Array.from({ length: mostCalls * 2 }, (_, n) =>
    boundedCall('stat', `/well/${n}`, () => Promise.resolve(n)),
  );
  assert.deepEqual(await Promise.all(after), [...after.keys()], 'all places are free again');
});

test('a caller that waits for a free place gets it when a call returns', async () => {
  const calls = Array.from({ length: mostCalls }, held);
  const asked = calls.map((each, n) => boundedCall('stat', `/slow/${n}`, each.call));
  const next = boundedCall('stat', '/next', () => Promise.resolve('next'));
  calls[0]!.end();
  assert.equal(await next, 'next');
  for (const each of calls) each.end();
  assert.deepEqual(new Set(await Promise.all(asked)), new Set(['returned']));
});
