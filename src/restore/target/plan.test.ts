import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { KiB, MiB } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import { ComparePolicy } from './compare-policy.ts';
import { edgeBytes, longestJob, type PlannedJob, planRestore } from './plan.ts';
import { WrittenRanges } from './written-ranges.ts';

const unit = 64 * KiB;

async function planned(
  data: readonly Extent[],
  size: number,
  zeros: 'none' | 'quick' | Bitmap,
  destinationSize = size,
): Promise<PlannedJob[]> {
  const jobs: PlannedJob[] = [];
  const options = { size, destinationSize, zeros, salvage: false, compare: () => true };
  // eslint-disable-next-line @typescript-eslint/require-await
  const stream = async function* (): AsyncGenerator<Extent> {
    yield* data;
  };
  for await (const job of planRestore(stream(), options)) jobs.push(job);
  return jobs;
}

const layout = fc.array(fc.constantFrom('data', 'used', 'unused'), { minLength: 1, maxLength: 400 });

test('a plan covers the image once, copies its data, and leaves only unused ranges', async () => {
  await fc.assert(
    fc.asyncProperty(layout, fc.nat(unit - 1), fc.nat(4), async (units, short, more) => {
      const size = units.length * unit - (short - (short % 512));
      const used = new Bitmap(size, unit);
      const data: Extent[] = [];
      for (const [i, kind] of units.entries()) {
        const offset = i * unit;
        const length = Math.min(unit, size - offset);
        if (kind === 'used') used.mark(offset, length);
        if (kind === 'data') data.push({ offset, length });
      }
      const destinationSize = size + more * unit;
      let at = 0;
      for (const job of await planned(data, size, used, destinationSize)) {
        assert.equal(job.offset, at);
        assert.ok(job.length > 0);
        if (job.do === 'copy' || job.must) assert.ok(job.length <= longestJob);
        for (let byte = job.offset; byte < job.offset + job.length; byte += 512) {
          const kind = byte < size ? units[Math.floor(byte / unit)] : 'behind';
          const edge = byte < edgeBytes || byte >= size - edgeBytes;
          if (kind === 'data') assert.equal(job.do, 'copy');
          else assert.equal(job.do === 'zero' && job.must, kind !== 'unused' || edge);
        }
        at += job.length;
      }
      assert.equal(at, destinationSize);
    }),
    { numRuns: 60 },
  );
});

test('a new file needs no zeros; if zeros are quick, everything absent becomes zero', async () => {
  const size = 100 * MiB;
  const data = [{ offset: 20 * MiB, length: 20 * MiB }];
  const sum = (jobs: readonly PlannedJob[], kind: string): number =>
    jobs.filter((job) => job.do === kind).reduce((total, job) => total + job.length, 0);
  const fresh = await planned(data, size, 'none');
  assert.deepEqual([sum(fresh, 'copy'), sum(fresh, 'zero')], [20 * MiB, 0]);
  const quick = await planned(data, size, 'quick', size + 50 * MiB);
  assert.deepEqual([sum(quick, 'copy'), sum(quick, 'zero')], [20 * MiB, 81 * MiB]);
  assert.equal(quick.at(-1)!.offset, 149 * MiB);
});

test('comparing stops if nothing is equal, is retried at times, and resumes', () => {
  const policy = new ComparePolicy('auto');
  let compared = 0;
  for (let i = 0; i < 1000; i++) {
    const compare = policy.next();
    if (compare) compared++;
    policy.learn(compare, 0);
  }
  assert.ok(compared < 90, String(compared));
  while (!policy.next());
  policy.learn(true, 4096);
  assert.ok(policy.next() && policy.next());
  assert.equal(new ComparePolicy('never').next(), false);
  assert.equal(new ComparePolicy('always').next(), true);
});

test('written ranges are returned unchanged', () => {
  const ranges = new WrittenRanges();
  const added = Array.from({ length: 1000 }, (_, i) => ({ offset: i * 2 ** 33 + 512, length: 4096 + i }));
  for (const [i, extent] of added.entries()) ranges.add(extent, Buffer.alloc(32, i));
  const jobs = [...ranges.jobs()];
  assert.deepEqual(
    jobs.map(({ offset, length, digest }) => [offset, length, digest[19]]),
    added.map(({ offset, length }, i) => [offset, length, i & 255]),
  );
});
