import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { type BudgetHolder, type BudgetShare, MemoryBudget } from './memory-budget.ts';

function holder(wake: () => void = () => undefined): BudgetHolder & { moved: number; cut: boolean } {
  return {
    moved: 0,
    waitsForClient: true,
    cut: false,
    wake,
    cutOff() {
      this.cut = true;
    },
  };
}

test('requests within the own allowance never wait; the rest is shared in the order of arrival', () => {
  const budget = new MemoryBudget({ shared: 100, own: 10 });
  const woken: string[] = [];
  const [a, b, c] = ['a', 'b', 'c'].map((name) => budget.join(holder(() => woken.push(name))));
  const held = a!.take(90)!;
  assert.equal(b!.take(20), undefined);
  assert.equal(c!.take(11), undefined, 'b came first');
  assert.ok(c!.take(10));
  held.give();
  held.give();
  assert.equal(budget.used, 0);
  assert.deepEqual(woken, ['b']);
  assert.ok(b!.take(20));
  assert.ok(c!.take(11));
  assert.equal(budget.used, 31);
});

test('a request larger than the budget is accepted if no other memory is in use', () => {
  const budget = new MemoryBudget({ shared: 100, own: 0 });
  const share = budget.join(holder());
  const large = share.take(1000)!;
  assert.equal(budget.join(holder()).take(1), undefined);
  large.give();
});

test('a client that keeps others waiting and transfers nothing is dropped; an active one is not', async () => {
  const budget = new MemoryBudget({ shared: 100, own: 0, patienceMs: 50 });
  const still = holder();
  const busy = holder();
  budget.join(still).take(50);
  budget.join(busy).take(50);
  const until = async (done: () => boolean): Promise<void> => {
    for (const deadline = performance.now() + 10_000; !done();) {
      assert.ok(performance.now() < deadline);
      busy.moved += 2 ** 20;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  };
  const waiting = holder();
  const share = budget.join({ ...waiting, waitsForClient: false });
  assert.equal(share.take(10), undefined);
  await until(() => still.cut);
  assert.equal(busy.cut, false);
  // The timer ends with the last waiting connection.
  share.leave();
});

test('for any order of take and give, the sum is right and no waiting connection is forgotten', () => {
  const step = fc.record({ who: fc.nat(3), bytes: fc.integer({ min: 1, max: 60 }), give: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const budget = new MemoryBudget({ shared: 100, own: 5 });
      const wanted = new Map<number, number>();
      const held: { who: number; bytes: number; give(): void }[] = [];
      const shares: BudgetShare[] = [];
      const ask = (who: number): void => {
        const bytes = wanted.get(who);
        assert.ok(bytes !== undefined, `${who} is woken, but waits for nothing`);
        const taken = shares[who]!.take(bytes);
        if (taken === undefined) return;
        wanted.delete(who);
        held.push({ who, bytes, ...taken });
      };
      for (let who = 0; who < 4; who++) shares.push(budget.join(holder(() => ask(who))));
      for (const { who, bytes, give } of steps) {
        if (give) held.splice(0, 1)[0]?.give();
        else if (!wanted.has(who)) {
          wanted.set(who, bytes);
          ask(who);
        }
        assert.ok(budget.used <= 100);
      }
      while (held.length > 0) held.shift()!.give();
      assert.equal(wanted.size, 0, 'all were served in the end');
      assert.equal(budget.used, 0);
      for (const share of shares) share.leave();
    }),
    { numRuns: 500 },
  );
});
