import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pauseAfter } from './back-off.ts';

const pauses = (jitter: number, random: number): number[] =>
  [1, 2, 3, 4, 5, 2000].map((failures) =>
    pauseAfter(failures, { firstMs: 100, longestMs: 1000, jitter }, () => random),
  );

test('pauses double up to the longest one', () => {
  assert.deepEqual(pauses(0, 0.5), [100, 200, 400, 800, 1000, 1000]);
});

test('jitter makes a part of each pause random', () => {
  assert.deepEqual(pauses(0.5, 0), [50, 100, 200, 400, 500, 500]);
  assert.deepEqual(pauses(1, 0.25), [25, 50, 100, 200, 250, 250]);
  assert.deepEqual(pauses(1, 0), [0, 0, 0, 0, 0, 0]);
});
