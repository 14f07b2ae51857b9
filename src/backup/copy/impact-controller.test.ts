import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { WriteCounters } from '../../devices/write-counters.ts';
import { impactLevels } from '../impact.ts';
import { ImpactController } from './impact-controller.ts';

const low = impactLevels.low!;
const normal = impactLevels.normal!;
const levels = fc.constantFrom(low, normal);

/** Counters of `count` writes that took `each` milliseconds each. */
const writes = (each: number, count = 20): WriteCounters => ({ writes: count, ms: each * count });

/** A controller that knows how long writes take while nothing is read. */
function knowing(level: typeof low, alone: number): ImpactController {
  const controller = new ImpactController(level);
  for (let i = 0; i < 9; i++) controller.noteResting(writes(alone));
  return controller;
}

const sample = fc.record({
  resting: fc.boolean(),
  writes: fc.nat({ max: 1000 }),
  each: fc.double({ min: 0, max: 2000, noNaN: true }),
});

test('the share stays between the least and the most of the level, for any measurements', () => {
  fc.assert(
    fc.property(levels, fc.array(sample), (level, samples) => {
      const controller = new ImpactController(level);
      for (const { resting, writes: count, each } of samples) {
        if (resting) controller.noteResting(writes(each, count));
        else controller.noteCopying(writes(each, count));
        assert.ok(controller.share >= level.least && controller.share <= level.most);
      }
    }),
  );
});

test('slower writes of other programs never bring a larger share', () => {
  fc.assert(
    fc.property(
      levels,
      fc.array(
        fc.tuple(fc.double({ min: 0, max: 50, noNaN: true }), fc.double({ min: 0, max: 50, noNaN: true })),
      ),
      (level, pairs) => {
        const [calm, slow] = [knowing(level, 1), knowing(level, 1)];
        for (const [each, more] of pairs) {
          calm.noteCopying(writes(each));
          slow.noteCopying(writes(each + more));
          assert.ok(slow.share <= calm.share);
        }
      },
    ),
  );
});

test('writes that take much longer lower the share to the least, and it returns to the most', () => {
  for (const level of [low, normal]) {
    const controller = knowing(level, 1);
    for (let i = 0; i < 30; i++) controller.noteCopying(writes(10));
    assert.equal(controller.share, level.least);
    for (let i = 0; i < 40; i++) controller.noteCopying(writes(1));
    assert.equal(controller.share, level.most);
  }
});

test('nothing is held back without writes, if writes are not slowed down, or before their usual time is known', () => {
  for (const level of [low, normal]) {
    const unwritten = knowing(level, 1);
    const unharmed = knowing(level, 3);
    const unknown = new ImpactController(level);
    for (let i = 0; i < 100; i++) {
      unwritten.noteCopying(writes(0, 0));
      unharmed.noteCopying(writes(3.05));
      unknown.noteCopying(writes(100));
    }
    for (const { share } of [unwritten, unharmed, unknown]) assert.equal(share, level.most);
  }
});

test('normal impact allows a small slowdown of writes, and low impact does not', () => {
  const [considerate, usual] = [knowing(low, 2), knowing(normal, 2)];
  for (let i = 0; i < 50; i++) for (const each of [considerate, usual]) each.noteCopying(writes(3));
  assert.equal(considerate.share, low.least);
  assert.equal(usual.share, normal.most);
});

test('one burst of writes during the moments of rest does not change the reference', () => {
  const controller = knowing(normal, 1);
  for (let i = 0; i < 4; i++) controller.noteResting(writes(500));
  for (let i = 0; i < 30; i++) controller.noteCopying(writes(10));
  assert.equal(controller.share, normal.least);
});

test('a rest is due from time to time while other programs write, and never if they do not', () => {
  const controller = new ImpactController(normal);
  const until = (each: WriteCounters): number => {
    for (let samples = 1; samples <= 200; samples++) {
      controller.noteCopying(each);
      if (controller.restDue) return samples;
    }
    return Infinity;
  };
  assert.equal(until(writes(1)), 5, 'the first one comes early');
  controller.noteResting(writes(1));
  assert.equal(until(writes(1)), 40);
  controller.noteResting(writes(1));
  for (let i = 0; i < 40; i++) controller.noteCopying(writes(0, 0));
  assert.equal(until(writes(0, 0)), Infinity);
});

test('the share settles at the slowdown of writes that the level allows', () => {
  // Reading all the time makes each write take four times as long.
  const settle = (level: typeof low): { share: number; each: number } => {
    const controller = knowing(level, 2);
    const shares = [];
    for (let i = 0; i < 400; i++) {
      if (i % 40 === 0) controller.noteResting(writes(2));
      controller.noteCopying(writes(2 * (1 + 3 * controller.share)));
      if (i >= 200) shares.push(controller.share);
    }
    const share = shares.reduce((sum, each) => sum + each, 0) / shares.length;
    return { share, each: 1 + 3 * share };
  };
  assert.ok(settle(normal).each < 2.1, JSON.stringify(settle(normal)));
  assert.ok(settle(low).each < 1.4, JSON.stringify(settle(low)));
  assert.ok(settle(low).share >= low.least);
});
