import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { FreezeGuard, type GuardKernel } from './guard.ts';
import type { FreezeReport } from './guard-messages.ts';

interface Behaviour {
  /** Milliseconds that each call takes. */
  readonly freezeMs?: readonly number[];
  readonly thawMs?: readonly number[];
  /** Mounts that another program has frozen before the test. */
  readonly foreign?: readonly number[];
  /** Number of thaw calls of each mount that fail with EIO before one succeeds. */
  readonly thawFailures?: readonly number[];
}

/** A kernel in simulated time. It records which mounts are frozen, by which owner, and every call. */
class FakeKernel implements GuardKernel {
  time = 1000;
  readonly calls: string[] = [];
  readonly frozenBy = new Map<number, 'us' | 'others'>();
  recorded: readonly number[] | undefined;
  readonly #behaviour: Behaviour;
  readonly #thawAttempts = new Map<number, number>();
  #timers: { at: number; callback: () => void }[] = [];

  constructor(behaviour: Behaviour = {}) {
    this.#behaviour = behaviour;
    for (const mount of behaviour.foreign ?? []) this.frozenBy.set(mount, 'others');
  }

  now(): number {
    return this.time;
  }

  after(ms: number, callback: () => void): () => void {
    const timer = { at: this.time + ms, callback };
    this.#timers.push(timer);
    return () => {
      this.#timers = this.#timers.filter((each) => each !== timer);
    };
  }

  sync(mount: number): Promise<void> {
    this.calls.push(`sync ${mount}`);
    return Promise.resolve();
  }

  async freeze(mount: number): Promise<void> {
    this.calls.push(`freeze ${mount}`);
    assert.ok(this.recorded?.includes(mount) === true, 'recorded before it is frozen');
    await this.#pass(this.#behaviour.freezeMs?.[mount] ?? 1);
    if (this.frozenBy.has(mount)) throw errno('EBUSY');
    this.frozenBy.set(mount, 'us');
  }

  async thaw(mount: number): Promise<void> {
    this.calls.push(`thaw ${mount}`);
    await this.#pass(this.#behaviour.thawMs?.[mount] ?? 1);
    const attempts = (this.#thawAttempts.get(mount) ?? 0) + 1;
    this.#thawAttempts.set(mount, attempts);
    if (attempts <= (this.#behaviour.thawFailures?.[mount] ?? 0)) throw errno('EIO');
    if (!this.frozenBy.has(mount)) throw errno('EINVAL');
    assert.equal(this.frozenBy.get(mount), 'us', 'a freeze of another program is never thawed');
    this.frozenBy.delete(mount);
  }

  record(mounts: readonly number[]): void {
    this.recorded = mounts;
  }

  forget(): void {
    this.recorded = undefined;
  }

  begin(): void {
    this.calls.push('begin');
  }

  /** Runs simulated time until nothing waits any more. */
  async run(): Promise<void> {
    for (;;) {
      // All promises that can continue do so before the time advances.
      await new Promise((resolve) => setImmediate(resolve));
      this.#timers.sort((a, b) => a.at - b.at);
      const next = this.#timers.shift();
      if (next === undefined) return;
      this.time = Math.max(this.time, next.at);
      next.callback();
    }
  }

  #pass(ms: number): Promise<void> {
    return new Promise((resolve) => this.after(ms, resolve));
  }
}

function errno(code: string): Error {
  return Object.assign(new Error(code), { code });
}

interface Expiry {
  why: string;
  report: FreezeReport;
}

function makeGuard(kernel: FakeKernel, mounts: number, maxFreezeMs: number): [FreezeGuard, Expiry[]] {
  const expiries: Expiry[] = [];
  const paths = Array.from({ length: mounts }, (_, i) => `/mnt${i}`);
  const guard = new FreezeGuard(kernel, paths, maxFreezeMs, (why, report) => expiries.push({ why, report }));
  return [guard, expiries];
}

test('all is synced, then frozen in order, then thawed from the last to the first', async () => {
  const kernel = new FakeKernel({ freezeMs: [10, 20], thawMs: [5, 5] });
  const [guard, expiries] = makeGuard(kernel, 2, 1000);
  const freezing = guard.freeze();
  kernel.after(100, () => void guard.thaw());
  await kernel.run();
  assert.equal(await freezing, 1000);
  const report = await guard.thaw();
  assert.deepEqual(kernel.calls, [
    ...['sync 0', 'sync 1', 'begin', 'freeze 0', 'freeze 1', 'thaw 1', 'thaw 0'],
  ]);
  assert.deepEqual(report, {
    frozenMs: 105,
    perMount: [
      { path: '/mnt0', frozenMs: 105, thawedByOthers: false },
      { path: '/mnt1', frozenMs: 95, thawedByOthers: false },
    ],
    failures: [],
  });
  assert.deepEqual(expiries, []);
  assert.equal(kernel.recorded, undefined);
});

test('without a thaw command, everything is thawed at the deadline, and this is reported', async () => {
  const kernel = new FakeKernel();
  const [guard, expiries] = makeGuard(kernel, 2, 500);
  const freezing = guard.freeze();
  await kernel.run();
  await freezing;
  assert.equal(expiries[0]?.why, 'deadline');
  assert.equal(expiries[0].report.frozenMs, 501);
  assert.equal(kernel.frozenBy.size, 0);
});

test('a freeze that returns after the deadline is thawed at once, and so are earlier freezes', async () => {
  const kernel = new FakeKernel({ freezeMs: [1, 5000] });
  const [guard, expiries] = makeGuard(kernel, 3, 500);
  const freezing = guard.freeze();
  const refused = assert.rejects(freezing, { code: 'FREEZE_TIMEOUT' });
  await kernel.run();
  await refused;
  assert.equal(kernel.frozenBy.size, 0);
  assert.ok(!kernel.calls.includes('freeze 2'));
  assert.equal(kernel.time, 1000 + 1 + 5000 + 1);
  // `freeze` itself fails. It did not report success, so there is no expiry to report.
  assert.deepEqual(expiries, []);
  assert.equal(kernel.recorded, undefined);
});

test('a mount that another program froze stays frozen, and our mounts are thawed', async () => {
  const kernel = new FakeKernel({ foreign: [1] });
  const [guard] = makeGuard(kernel, 3, 500);
  const refused = assert.rejects(guard.freeze(), { code: 'ALREADY_FROZEN', message: /\/mnt1/ });
  await kernel.run();
  await refused;
  assert.deepEqual([...kernel.frozenBy], [[1, 'others']]);
  assert.equal(kernel.recorded, undefined);
});

test('a thaw by another program is reported, and a thaw that fails is tried again', async () => {
  const kernel = new FakeKernel({ thawFailures: [3, 0] });
  const [guard] = makeGuard(kernel, 2, 1000);
  const freezing = guard.freeze();
  kernel.after(50, () => {
    kernel.frozenBy.delete(1);
    void guard.thaw();
  });
  await kernel.run();
  await freezing;
  const report = await guard.thaw();
  assert.deepEqual(
    report.perMount.map(({ thawedByOthers }) => thawedByOthers),
    [false, true],
  );
  assert.equal(kernel.calls.filter((call) => call === 'thaw 0').length, 4);
  assert.equal(kernel.frozenBy.size, 0);
});

test('a thaw that never succeeds is reported, and the record stays', async () => {
  const kernel = new FakeKernel({ thawFailures: [1e9] });
  const [guard] = makeGuard(kernel, 1, 1000);
  const freezing = guard.freeze();
  await kernel.run();
  await freezing;
  assert.match((await guard.thaw()).failures.join(), /\/mnt0 could not be thawed \(EIO\)/);
  assert.deepEqual(kernel.recorded, [0]);
});

test('in the end no mount that we froze stays frozen, for any durations and any interruption', async () => {
  const times = fc.array(fc.nat(300), { minLength: 4, maxLength: 4 });
  await fc.assert(
    fc.asyncProperty(
      times,
      times,
      fc.subarray([0, 1, 2, 3], { maxLength: 1 }),
      fc.array(fc.nat(3), { minLength: 4, maxLength: 4 }),
      fc.record({ at: fc.nat(1500), how: fc.constantFrom('thaw', 'expire', 'nothing') }),
      async (freezeMs, thawMs, foreign, thawFailures, interruption) => {
        const kernel = new FakeKernel({ freezeMs, thawMs, foreign, thawFailures });
        const [guard] = makeGuard(kernel, 4, 500);
        const outcome = guard.freeze().then(
          () => 'frozen',
          () => 'refused',
        );
        kernel.after(interruption.at, () => {
          if (interruption.how === 'thaw') void guard.thaw();
          if (interruption.how === 'expire') void guard.expire('signal');
        });
        await kernel.run();
        await outcome;
        assert.deepEqual(
          [...kernel.frozenBy.values()].filter((owner) => owner === 'us'),
          [],
        );
        assert.equal(kernel.frozenBy.size, foreign.length);
        assert.equal(kernel.recorded, undefined);
      },
    ),
  );
});
