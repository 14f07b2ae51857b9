import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { freezeTurn } from './turns.ts';

const { signal } = new AbortController();

test('freezes with a filesystem in common wait for each other, other freezes do not wait', async () => {
  const order: string[] = [];
  const outer = await freezeTurn(['loop1', 'loop0'], signal);
  const inner = freezeTurn(['loop1'], signal).then((done) => {
    order.push('inner');
    return done;
  });
  (await freezeTurn(['loop7'], signal))();
  await turn();
  assert.deepEqual(order, []);
  outer();
  // A second call does nothing.
  outer();
  (await inner)();
  (await freezeTurn(['loop0', 'loop1'], signal))();
});

test('the signal ends a wait', async () => {
  const done = await freezeTurn(['loop1'], signal);
  const controller = new AbortController();
  const waiting = freezeTurn(['loop1'], controller.signal);
  controller.abort(new Error('cancelled'));
  await assert.rejects(waiting, /cancelled/);
  done();
  (await freezeTurn(['loop1'], signal))();
});
