import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { limit } from './limit.ts';

test('at most the limit runs at once, all work runs, and each caller gets its own result', async () => {
  const limited = limit(7);
  let running = 0;
  let most = 0;
  const results = await Promise.all(
    [...Array(50).keys()].map((item) =>
      limited(async () => {
        most = Math.max(most, ++running);
        for (let turns = item % 5; turns >= 0; turns--) await turn();
        running--;
        return item * 2;
      }),
    ),
  );
  assert.deepEqual(
    results,
    [...Array(50).keys()].map((item) => item * 2),
  );
  assert.equal(most, 7);
});

test('work that fails frees its place', async () => {
  const limited = limit(1);
  const failure = new Error('failed');
  await assert.rejects(
    limited(() => Promise.reject(failure)),
    failure,
  );
  assert.equal(await limited(() => Promise.resolve('next')), 'next');
});
