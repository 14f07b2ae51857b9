import assert from 'node:assert/strict';
import test from 'node:test';
import { impactLevels } from '../impact.ts';
import { Control } from './control.ts';
import { ImpactWatch } from './impact-watch.ts';

test('all threads rest for two samples, of which the second counts; after the end nothing is held back', () => {
  const control = new Control(2);
  const level = impactLevels.normal!;
  const now = { writes: 0, ms: 0 };
  const watch = new ImpactWatch(level, control, () => ({ ...now }));
  const sample = (each: number): number => {
    now.writes += 10;
    now.ms += 10 * each;
    watch.sample();
    return control.share;
  };
  watch.start();
  watch.copying = true;
  const before = Array.from({ length: 6 }, () => sample(20));
  assert.deepEqual(before, [1, 1, 1, 1, 1, 0], 'writes are seen, so the first rest comes soon');
  assert.equal(sample(20), 0, 'reads that were under way end in this sample');
  assert.equal(sample(1), 1);
  for (let i = 0; i < 20; i++) sample(20);
  assert.equal(control.share, level.least, 'writes take 20 times as long as in the rest');
  watch.copying = false;
  watch.copying = true;
  assert.equal(control.share, level.least, 'the next pass begins where the last one ended');
  watch.stop();
  assert.equal(control.share, 1);
  watch.copying = false;
  assert.equal(control.share, 1);
});
