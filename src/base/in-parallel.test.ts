import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { inParallel } from './in-parallel.ts';

test('at most so many pieces of work run at once, and every item is worked on', async () => {
  const done: number[] = [];
  let running = 0;
  let highest = 0;
  await inParallel([...Array(20).keys()], 3, async (item) => {
    highest = Math.max(highest, ++running);
    for (let turns = item % 4; turns >= 0; turns--) await turn();
    running--;
    done.push(item);
  });
  assert.equal(highest, 3);
  assert.deepEqual(
    done.sort((a, b) => a - b),
    [...Array(20).keys()],
  );
});

test('a failure starts no further work, and the work in progress ends first', async () => {
  const begun: number[] = [];
  let ended = 0;
  await assert.rejects(
    inParallel([...Array(10).keys()], 3, async (item) => {
      begun.push(item);
      await turn();
      if (item === 2) await turn();
      ended++;
      if (item === 1) throw new Error('one');
      if (item === 2) throw new Error('two');
    }),
    /one/,
  );
  assert.ok(begun.length <= 5, `${begun.length} begun`);
  assert.equal(ended, begun.length);
});

test('a failure to take an item rejects as well', async () => {
  const items = {
    *[Symbol.iterator]() {
      yield 1;
      throw new Error('no more');
    },
  };
  const begun: number[] = [];
  await assert.rejects(
    inParallel(items, 2, async (item) => {
      begun.push(item);
      await turn();
    }),
    /no more/,
  );
  assert.deepEqual(begun, [1]);
});
