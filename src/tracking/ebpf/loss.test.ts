import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type CounterValues, lostByCounters, lostByNesting } from './loss.ts';

const before = { misses: [4n, 0n, 0n], deep: 1n };

test('misses of some copies lose nothing; misses of all copies lose events if three ran at once', () => {
  const nested = (misses: bigint[], deep: bigint) =>
    lostByNesting('block_rq_complete', before, { misses, deep });
  assert.equal(nested([4n, 0n, 0n], 1n), undefined);
  assert.equal(nested([900n, 20n, 0n], 2n), undefined);
  assert.equal(nested([4n, 20n, 3n], 2n), undefined);
  assert.equal(nested([9n, 20n, 3n], 1n), undefined);
  assert.match(
    nested([9n, 20n, 3n], 2n) ?? '',
    /all 3 copies.*block_rq_complete.*5, 20, 3 times, nested 1 times/,
  );
});

test('each counter is a reason of its own, but over-marking is not a reason', () => {
  const none: CounterValues = {
    everything: 9n,
    passthrough: 0n,
    lostInFlight: 0n,
    unpaired: 0n,
    zoneReset: 0n,
  };
  assert.equal(lostByCounters(none), undefined);
  assert.match(lostByCounters({ ...none, unpaired: 2n }) ?? '', /beginning was not seen: 2/);
  assert.match(lostByCounters({ ...none, passthrough: 1n }) ?? '', /SG_IO, NVMe.*: 1/);
  assert.match(lostByCounters({ ...none, lostInFlight: 7n }) ?? '', /remembered: 7/);
  assert.match(lostByCounters({ ...none, zoneReset: 1n }) ?? '', /zones/);
});
