import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { DirtyMap } from './dirty-map.ts';

const unit = 4096;
const units = 200;
const size = units * unit - 100;

type Step =
  | { readonly do: 'mark'; readonly first: number; readonly count: number }
  | { readonly do: 'take'; readonly under: number }
  | { readonly do: 'commit'; readonly which: number };

const step = fc.oneof<fc.Arbitrary<Step>[]>(
  fc.record({ do: fc.constant('mark'), first: fc.nat(units - 1), count: fc.integer({ min: 1, max: 80 }) }),
  fc.record({ do: fc.constant('take'), under: fc.nat(units - 1) }),
  fc.record({ do: fc.constant('commit'), which: fc.nat(5) }),
);

test('a take yields all marks since the last committed take, with any events in between', () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
      const dirty = new DirtyMap(size, unit, [new Bitmap(size, unit).buffer, new Bitmap(size, unit).buffer]);
      /** Marked since the last committed take, with the writes that were under way at takes that are not committed. */
      let since = new Set<number>();
      let fresh = new Set<number>();
      const takes: number[] = [];
      for (const each of steps)
        if (each.do === 'mark') {
          const end = Math.min(each.first + each.count, units);
          dirty.mark(each.first * unit, Math.min(end * unit, size + 50));
          for (let index = each.first; index < end; index++) fresh.add(index);
        } else if (each.do === 'take') {
          const { generation, map } = dirty.take([[each.under * unit, 1]]);
          since = new Set([...since, ...fresh, each.under]);
          fresh = new Set();
          takes.push(generation);
          const found = Array.from({ length: units }, (_, i) => i).filter((i) => map.has(i));
          assert.deepEqual(
            found,
            [...since].sort((a, b) => a - b),
          );
        } else {
          const generation = takes[each.which % Math.max(takes.length, 1)];
          if (generation === undefined) continue;
          dirty.commit(generation);
          // The commit of an earlier take forgets nothing: the last take holds its marks too.
          if (generation === takes.at(-1)) since = new Set();
        }
      assert.equal(dirty.units, new Set([...since, ...fresh]).size);
    }),
  );
});

test('marks outside the device are ignored', () => {
  const dirty = new DirtyMap(size, unit, [new Bitmap(size, unit).buffer, new Bitmap(size, unit).buffer]);
  dirty.mark(-3 * unit, 1);
  dirty.mark(size - 1, size + unit * 5);
  assert.deepEqual(
    [...dirty.take([]).map.extents()],
    [
      { offset: 0, length: unit },
      { offset: (units - 1) * unit, length: unit - 100 },
    ],
  );
});
