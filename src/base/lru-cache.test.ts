import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { LruCache } from './lru-cache.ts';

test('the least recently used entry is removed first, as in a model, and the weight is limited', () => {
  const step = fc.record({
    key: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
    weight: fc.option(fc.integer({ min: 1, max: 12 }), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const cache = new LruCache<number>(10, (weight) => weight);
      // The model: the entry that was used last is the last one.
      let model: { key: string; weight: number }[] = [];
      for (const { key, weight } of steps) {
        const known = model.find((entry) => entry.key === key);
        if (weight === undefined) assert.equal(cache.get(key), known?.weight);
        else cache.set(key, weight);
        const entry = weight === undefined ? known : { key, weight };
        model = model.filter((other) => other.key !== key);
        if (entry !== undefined && entry.weight <= 10) model.push(entry);
        const sum = (): number => model.reduce((total, other) => total + other.weight, 0);
        while (sum() > 10) model.shift();
        assert.equal(cache.weight, sum());
        for (const name of ['a', 'b', 'c', 'd', 'e'])
          assert.equal(
            cache.has(name),
            model.some((other) => other.key === name),
          );
      }
      cache.clear();
      assert.deepEqual([cache.weight, cache.has('a')], [0, false]);
    }),
  );
});
