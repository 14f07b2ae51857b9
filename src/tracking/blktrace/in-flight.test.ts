import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { InFlight, settleTime } from './in-flight.ts';

const unit = 4096;
const units = 64;
const size = units * unit;

function underWay(flight: InFlight): number[] {
  const found = new Set<number>();
  for (const [offset, length] of flight.ranges())
    for (let index = offset / unit; index < (offset + length) / unit; index++) found.add(index);
  return [...found].sort((a, b) => a - b);
}

test('a write is under way from its queue event to its completion', () => {
  const flight = new InFlight(size, unit);
  flight.queued(0, 8192, 1);
  flight.queued(16_384, 20_480, 2);
  assert.deepEqual(underWay(flight), [0, 1, 4]);
  assert.equal(flight.completed(0, 4096, false), undefined);
  // Only the last part of a split write: dm does not report the other parts.
  assert.deepEqual(flight.completed(4096, 8192, false), { start: 0, end: 8192, queued: 1 });
  assert.deepEqual(underWay(flight), [4]);
  assert.equal(flight.completed(18_432, 20_480, true), undefined);
  assert.ok(flight.completed(16_384, 20_480, true));
  assert.deepEqual(underWay(flight), []);
});

test('a completion that began before the write belongs to another write', () => {
  const flight = new InFlight(size, unit);
  flight.queued(4096, 8192, 1);
  assert.equal(flight.completed(0, 8192, false), undefined);
  assert.deepEqual(underWay(flight), [1]);
});

test('if two writes end at the same place, neither completion is recognised', () => {
  const flight = new InFlight(size, unit);
  flight.queued(0, 16_384, 1);
  flight.queued(12_288, 16_384, 2);
  assert.equal(flight.completed(12_288, 16_384, false), undefined);
  assert.deepEqual(underWay(flight), [0, 1, 2, 3]);
});

test('a write that is never seen to end stays under way, until a freeze comes long enough after it', () => {
  const flight = new InFlight(size, unit);
  flight.queued(0, 4096, 0);
  flight.queued(4096, 8192, 10e9);
  flight.queued(4096, 8192, 11e9);
  flight.settle(settleTime + 1e9);
  assert.deepEqual(underWay(flight), [1]);
  flight.queued(40_960, 45_056, settleTime + 5e9);
  flight.settle(settleTime + 12e9);
  assert.deepEqual(underWay(flight), [10]);
});

test('writes beyond the number that is known one by one are still under way', () => {
  const count = 70_000;
  const flight = new InFlight(count * unit * 2, unit);
  for (let i = 0; i < count; i++) flight.queued(i * 2 * unit, (i * 2 + 1) * unit, i);
  assert.equal(underWay(flight).length, count);
  assert.equal(flight.completed(0, unit, true), undefined);
  assert.ok(flight.memory < 20e6, `${flight.memory}`);
});

/**
 * A model of a block layer that splits from the front and completes in any order. Of a split write it reports the last
 * part (dm), every part (md), or nothing (md raid0 without statistics).
 */
test('no unit of a write that has not ended is ever missing, with any overlaps and splits', () => {
  const write = fc.record({
    first: fc.nat(80),
    sectors: fc.integer({ min: 1, max: 40 }),
    cuts: fc.array(fc.integer({ min: 1, max: 39 }), { maxLength: 3 }),
    manner: fc.constantFrom('last', 'every', 'none'),
  });
  const steps = fc.array(fc.oneof(write, fc.nat(20)), { maxLength: 60 });
  fc.assert(
    fc.property(steps, (sequence) => {
      const flight = new InFlight(size, unit);
      interface Running {
        readonly start: number;
        readonly end: number;
        /** Completions that are still to come; the last one ends the write. */
        readonly told: [number, number][];
        readonly silent: boolean;
      }
      let running: Running[] = [];
      let time = 0;
      for (const each of sequence) {
        time += 1e6;
        if (typeof each === 'object') {
          const start = each.first * 512;
          const end = start + each.sectors * 512;
          const cuts = [...new Set(each.cuts)].filter((cut) => cut < each.sectors).sort((a, b) => a - b);
          const edges = [start, ...cuts.map((cut) => start + cut * 512), end];
          const parts = edges.slice(1).map((edge, i): [number, number] => [edges[i]!, edge]);
          const told = each.manner === 'every' ? parts : [parts.at(-1)!];
          flight.queued(start, end, time);
          running.push({ start, end, told, silent: each.manner === 'none' });
        } else if (running.length > 0) {
          const one = running[each % running.length]!;
          const [from, to] = one.told.shift()!;
          if (one.told.length === 0) running = running.filter((other) => other !== one);
          if (!one.silent) flight.completed(from, to, false);
        }
        const known = new Set(underWay(flight));
        for (const { start, end } of running)
          for (let index = Math.floor(start / unit); index < Math.min(Math.ceil(end / unit), units); index++)
            assert.ok(known.has(index), `unit ${index} of [${start}, ${end}) is missing`);
      }
    }),
    { numRuns: 2000 },
  );
});

/** A completion reports the beginning of the first discard and the total length of all of them. */
test('no unit is missing of discards that one request carried together', () => {
  const steps = fc.array(
    fc.oneof(
      fc.record({ first: fc.nat(units - 1), count: fc.integer({ min: 1, max: 6 }) }),
      fc.array(fc.nat(20), { minLength: 1, maxLength: 4 }),
    ),
    { maxLength: 50 },
  );
  fc.assert(
    fc.property(steps, (sequence) => {
      const flight = new InFlight(size, unit);
      let running: { start: number; end: number }[] = [];
      let time = 0;
      for (const each of sequence) {
        time += 1e6;
        if (!Array.isArray(each)) {
          const start = each.first * unit;
          const end = start + each.count * unit;
          flight.queued(start, end, time);
          running.push({ start, end });
        } else if (running.length > 0) {
          const together = new Set(each.map((index) => running[index % running.length]!));
          running = running.filter((one) => !together.has(one));
          const [first] = together;
          const bytes = [...together].reduce((sum, { start, end }) => sum + end - start, 0);
          flight.completed(first!.start, first!.start + bytes, true);
        }
        const known = new Set(underWay(flight));
        for (const { start, end } of running)
          for (let index = start / unit; index < Math.min(end / unit, units); index++)
            assert.ok(known.has(index), `unit ${index} of [${start}, ${end}) is missing`);
      }
    }),
    { numRuns: 1000 },
  );
});
