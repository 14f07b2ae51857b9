import assert from 'node:assert/strict';
import { test, type TestContext } from 'node:test';
import { Worker } from 'node:worker_threads';
import { AgentError } from './errors.ts';
import { ThreadCalls, type ThreadOwner } from './thread-calls.ts';

interface Protocol {
  readonly calls: {
    add: { args: readonly [number, number]; result: number };
    refuse: { args: undefined; result: undefined };
    /** Answered by the notice `release`. */
    hold: { args: string; result: string };
    throwLater: { args: undefined; result: undefined };
    exit: { args: undefined; result: undefined };
    unsendable: { args: undefined; result: unknown };
  };
  readonly notices: { release: string };
  readonly events: { held: string };
}

const code = `
  const { parentPort } = require('node:worker_threads');
  const held = new Map();
  void (async () => {
    const { AgentError } = await import(${JSON.stringify(import.meta.resolve('./errors.ts'))});
    const { answerCalls } = await import(${JSON.stringify(import.meta.resolve('./thread-calls.ts'))});
    const handlers = {
      add: ([a, b]) => a + b,
      refuse: () => { throw new AgentError('DEVICE_BUSY', 'busy', { hint: 'wait' }); },
      hold: (name) => new Promise((resolve) => { held.set(name, resolve); owner.notify('held', name); }),
      throwLater: () => new Promise(() => setImmediate(() => { throw new Error('a defect'); })),
      exit: () => process.exit(3),
      unsendable: () => () => 0,
    };
    const owner = answerCalls(parentPort, {
      answer: (name, args) => handlers[name](args),
      notices: { release: (name) => held.get(name)?.(name.toUpperCase()) },
    });
  })();
`;

function start(
  t: TestContext,
  owner: Partial<ThreadOwner<Protocol>> = {},
): { worker: Worker; thread: ThreadCalls<Protocol> } {
  const worker = new Worker(code, { eval: true });
  t.after(() => worker.terminate());
  const whyEnded = (thrown: Error | undefined) => new AgentError('INTERNAL', `ended: ${String(thrown)}`);
  return { worker, thread: new ThreadCalls<Protocol>(worker, { whyEnded, ...owner }) };
}

test('calls get their results, and errors keep code and hint', async (t) => {
  const { thread } = start(t);
  assert.deepEqual(await Promise.all([thread.call('add', [1, 2]), thread.call('add', [3, 4])]), [3, 7]);
  await assert.rejects(thread.call('refuse', undefined), { code: 'DEVICE_BUSY', hint: 'wait' });
  await assert.rejects(thread.call('unsendable', undefined), { code: 'INTERNAL' });
  assert.equal(await thread.call('add', [5, 6]), 11);
});

test('a notice overtakes calls that wait, which end in any order', async (t) => {
  const held: string[] = [];
  const { thread } = start(t, {
    events: {
      held: (name) => {
        held.push(name);
        if (held.length === 2) for (const each of held.toReversed()) thread.notify('release', each);
      },
    },
  });
  const ended: string[] = [];
  await Promise.all(
    ['a', 'b'].map(async (name) => {
      ended.push(await thread.call('hold', name));
    }),
  );
  assert.deepEqual(
    [held, ended],
    [
      ['a', 'b'],
      ['B', 'A'],
    ],
  );
});

test('all calls reject if the thread fails or exits, and later calls too', async (t) => {
  for (const [how, why] of [
    ['throwLater', 'ended: Error: a defect'],
    ['exit', 'ended: undefined'],
  ] as const) {
    const ends: string[] = [];
    const { thread } = start(t, { onEnd: ({ message }) => void ends.push(message) });
    const waiting = thread.call('hold', 'for ever');
    const ending = thread.call(how, undefined);
    await Promise.all([waiting, ending].map((each) => assert.rejects(each, { message: why })));
    await thread.exited;
    await assert.rejects(thread.call('add', [1, 1]), { message: why });
    assert.deepEqual([ends, thread.isEnded, thread.waiting], [[why], true, 0]);
  }
});

test('a call that takes too long ends the thread', async (t) => {
  const limit = { ms: 50, error: () => new AgentError('NO_ANSWER', 'too long') };
  const { thread } = start(t, { limit });
  await assert.rejects(thread.call('hold', 'for ever'), { code: 'NO_ANSWER' });
  await thread.exited;
});

test('the owner may end the calls while the thread continues, and terminates a thread that does not exit', async (t) => {
  const { worker, thread } = start(t);
  const waiting = thread.call('hold', 'for ever');
  assert.equal(thread.waiting, 1);
  thread.end(new AgentError('CANCELLED', 'enough'));
  await assert.rejects(waiting, { code: 'CANCELLED' });
  const next = new ThreadCalls<Protocol>(worker, { whyEnded: () => new AgentError('INTERNAL', 'ended') });
  assert.equal(await next.call('add', [2, 2]), 4);
  await next.exitWithin(1);
  assert.ok(next.isEnded);
});
