import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AgentError } from '../../base/errors.ts';
import { collect } from '../../../test/helpers/collect.ts';
import { manualClock } from '../../../test/helpers/manual-clock.ts';
import { type StoreFaults, answered, faultyStore, nth } from '../../../test/helpers/stores/faulty-store.ts';
import { openMemoryStore } from '../../../test/helpers/stores/memory-store.ts';
import { type RetrySettings, type RetryWait, retryingStore } from './retry.ts';

function troubled(fate: StoreFaults['fate'], settings: RetrySettings = {}) {
  const clock = manualClock();
  const memory = openMemoryStore({ now: () => clock.now() });
  const waits: RetryWait[] = [];
  let answers = 0;
  const faulty = faultyStore(memory, { fate, clock });
  const store = retryingStore(faulty, settings, {
    clock,
    random: () => 0.5,
    onWait: (wait) => waits.push(wait),
    onAnswer: () => answers++,
  });
  return { clock, memory, faulty, store, waits, answers: () => answers };
}

const always = (error: AgentError) => () => ({ kind: 'fail', happened: false, error }) as const;

test('repeats a request after growing waits, and reports them', async () => {
  const { store, clock, waits, answers } = troubled(({ number }) =>
    number < 4 ? { kind: 'fail', happened: false, error: answered(503) } : undefined,
  );
  await store.put('a', Buffer.from('x'));
  assert.deepEqual(clock.sleeps, [125, 250, 500, 1000]);
  assert.deepEqual(
    waits.map(({ attempts, elapsedMs, waitMs }) => [attempts, elapsedMs, waitMs]),
    [
      [1, 0, 125],
      [2, 125, 250],
      [3, 375, 500],
      [4, 875, 1000],
    ],
  );
  assert.ok(waits[0] !== undefined);
  assert.equal(waits[0].request.kind, 'put');
  assert.match(waits[0].error.message, /503/);
  assert.equal(answers(), 1);
});

test('gives up after the total time, with the last error and the attempts', async () => {
  const { store, clock } = troubled(always(answered(500)), { totalMs: 60_000 });
  await assert.rejects(store.get('a'), {
    code: 'VAULT_UNREACHABLE',
    message: /500 \(\d+ attempts in \d+ s\)/,
  });
  const slept = clock.sleeps.reduce((sum, ms) => sum + ms, 0);
  assert.ok(slept > 40_000 && slept < 60_000, `${slept} ms`);
  assert.equal(Math.max(...clock.sleeps), 10_000, 'half of the longest wait');
});

test('never waits if the total time is 0', async () => {
  const { store, clock } = troubled(always(answered(500)), { totalMs: 0 });
  await assert.rejects(store.get('a'), {
    code: 'VAULT_UNREACHABLE',
    message: /^injected: the server answered 500$/,
  });
  assert.deepEqual(clock.sleeps, []);
});

test('does not repeat requests that cannot succeed', async () => {
  for (const code of [
    'VAULT_DENIED',
    'VAULT_FULL',
    'VAULT_READ_ONLY',
    'VAULT_NOT_FOUND',
    'VAULT_TLS',
  ] as const) {
    const { store, clock } = troubled(always(new AgentError(code, 'no')));
    await assert.rejects(store.put('a', Buffer.from('x')), { code });
    assert.deepEqual(clock.sleeps, []);
  }
  const { store, clock } = troubled(() => undefined);
  await assert.rejects(store.get('a'), { code: 'VAULT_OBJECT_MISSING' });
  await assert.rejects(store.get('A'), RangeError);
  assert.deepEqual(clock.sleeps, []);
});

test('repeats a bad read of a disk once', async () => {
  const error = new AgentError('VAULT_STORE_ERROR', 'bad', {
    cause: Object.assign(new Error('x'), { code: 'EIO' }),
  });
  const once = troubled(nth(0, { kind: 'fail', happened: false, error }));
  await once.memory.put('a', Buffer.from('x'));
  assert.equal((await once.store.get('a')).toString(), 'x');
  const ever = troubled(always(error));
  await assert.rejects(ever.store.get('a'), { code: 'VAULT_STORE_ERROR' });
  assert.equal(ever.clock.sleeps.length, 1);
});

test('a signal ends the waiting', async () => {
  const abort = new AbortController();
  const { store, waits } = troubled((request) => {
    if (request.number === 2) abort.abort(new Error('enough'));
    return { kind: 'fail', happened: false };
  });
  await assert.rejects(store.put('a', Buffer.from('x'), { signal: abort.signal }), /enough/);
  assert.equal(waits.length, 2);
});

test('a put that failed but happened, or lands late, is repeated', async () => {
  const { store, memory, faulty } = troubled(({ number }) =>
    number === 0 ? { kind: 'late' } : number === 1 ? { kind: 'fail', happened: true } : undefined,
  );
  await store.put('a', Buffer.from('x'));
  assert.equal(memory.objects.size, 1);
  assert.equal(faulty.pending, 1);
  await memory.put('a', Buffer.from('changed in the meantime'));
  await faulty.land();
  assert.equal((await store.get('a')).toString(), 'x', 'the old put landed late');
});

test('a listing continues after an interruption', async () => {
  const { store, memory } = troubled(({ kind, number }) =>
    kind === 'list' && number < 3 ? { kind: 'fail', happened: number !== 1 } : undefined,
  );
  const keys = ['a/1', 'a/2', 'b', 'c/d'];
  for (const key of keys) await memory.put(key, Buffer.from('x'));
  assert.deepEqual(
    (await collect(store.list(''))).map(({ key }) => key),
    keys,
  );
  assert.deepEqual(
    (await collect(store.list('', { after: 'a/2' }))).map(({ key }) => key),
    ['b', 'c/d'],
  );
});
