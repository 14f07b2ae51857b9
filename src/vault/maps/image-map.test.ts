import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import type { Extent } from '../../base/extents.ts';
import { Namer, isZeroName, nameLength } from '../names.ts';
import { type BuildMapOptions, type BuiltMap, buildMap } from './build.ts';
import { ImageMap } from './image-map.ts';
import { MapShape } from './shape.ts';

const chunkSize = 4096;

/** Pages in memory with a counter of reads. */
class Pages {
  readonly stored = new Map<string, Buffer>();
  reads = 0;
  added = 0;

  add(name: Buffer, plain: Buffer): undefined {
    this.stored.set(name.toString('hex'), Buffer.from(plain));
    this.added++;
    return undefined;
  }

  get = (name: Buffer): Promise<Buffer> => {
    this.reads++;
    const page = this.stored.get(name.toString('hex'));
    assert.ok(page, 'every requested page was stored, and the all-zero name is not requested');
    return Promise.resolve(page);
  };

  prefetch = (names: readonly Buffer[]): void => {
    assert.ok(names.every((name) => !isZeroName(name)));
  };

  map(built: BuiltMap, size: number, entries?: number): ImageMap {
    const { root, levels } = built;
    return new ImageMap(this, {
      root,
      levels,
      size,
      chunkSize,
      ...(entries === undefined ? {} : { entries }),
    });
  }
}

const namer = new Namer(Buffer.alloc(32, 3));

/** The model: one number per chunk, 0 for zeros. */
type Model = readonly number[];

const unchanged = -1;

function nameOf(value: number): Buffer {
  if (value === unchanged) return Buffer.alloc(nameLength);
  if (value === 0) return Buffer.alloc(nameLength, 0xff);
  const name = Buffer.alloc(nameLength);
  name.writeUInt32LE(value, 4);
  return name;
}

function changedTo(model: Model): BuildMapOptions['changed'] {
  return (first, count) =>
    Buffer.concat(Array.from({ length: count }, (_, at) => nameOf(model[first + at] ?? unchanged)));
}

async function readModel(map: ImageMap): Promise<number[]> {
  const names = await map.names(0, map.shape.chunks);
  return Array.from({ length: map.shape.chunks }, (_, at) => names.readUInt32LE(at * nameLength + 4));
}

function build(
  pages: Pages,
  size: number,
  entries: number | undefined,
  model: Model,
  more: Partial<BuildMapOptions> = {},
): Promise<BuiltMap> {
  const shape = entries === undefined ? {} : { entries };
  return buildMap({ size, chunkSize, changed: changedTo(model), namer, pages, ...shape, ...more });
}

async function extentsOf(extents: AsyncIterable<Extent>): Promise<Extent[]> {
  const all: Extent[] = [];
  for await (const extent of extents) all.push(extent);
  return all;
}

/** Returns the extents of chunks for which the test holds, computed the simple way. */
function modelExtents(count: number, size: number, test: (chunk: number) => boolean): Extent[] {
  const all: { offset: number; length: number }[] = [];
  for (let chunk = 0; chunk < count; chunk++) {
    if (!test(chunk)) continue;
    const offset = chunk * chunkSize;
    const length = Math.min(chunkSize, size - offset);
    const last = all.at(-1);
    if (last !== undefined && last.offset + last.length === offset) last.length += length;
    else all.push({ offset, length });
  }
  return all;
}

const bytesOf = (model: Model, size: number): number =>
  modelExtents(model.length, size, (chunk) => model[chunk] !== 0).reduce(
    (sum, { length }) => sum + length,
    0,
  );

/** A device of up to five levels with few entries, its content, and its changes. */
const scenario = fc
  .record({
    entries: fc.integer({ min: 2, max: 5 }),
    chunks: fc.integer({ min: 1, max: 90 }),
    tail: fc.integer({ min: 1, max: chunkSize }),
  })
  .chain(({ entries, chunks, tail }) => {
    const value = fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 9 }));
    const change = fc.oneof(
      { arbitrary: fc.constant(unchanged), weight: 6 },
      { arbitrary: value, weight: 1 },
    );
    const each = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T[]> =>
      fc.array(arbitrary, { minLength: chunks, maxLength: chunks });
    return fc.record({
      entries: fc.constant(entries),
      size: fc.constant((chunks - 1) * chunkSize + tail),
      before: each(fc.oneof(value, fc.constant(0), fc.constant(0))),
      change: each(change),
      used: each(fc.boolean()),
      withUse: fc.boolean(),
    });
  });

test('property: maps agree with an array when built, changed, read, limited, walked and compared', async () => {
  await fc.assert(
    fc.asyncProperty(scenario, async ({ entries, size, before, change, used, withUse }) => {
      const pages = new Pages();
      const first = await build(pages, size, entries, before);
      assert.equal(first.growth, bytesOf(before, size));
      const base = pages.map(first, size, entries);
      assert.deepEqual(await readModel(base), before);

      const expected = before.map((value, chunk) =>
        withUse && used[chunk] === false ? 0 : change[chunk] === unchanged ? value : change[chunk]!,
      );
      const touched = modelExtents(
        before.length,
        size,
        (chunk) => change[chunk] !== unchanged || (withUse && used[chunk] === false),
      ).toReversed();
      const inUse = (offset: number): boolean => used[offset / chunkSize]!;
      const second = await build(pages, size, entries, change, {
        base,
        touched,
        ...(withUse ? { used: inUse } : {}),
      });
      const whole = await build(pages, size, entries, change, { base, ...(withUse ? { used: inUse } : {}) });
      const map = pages.map(second, size, entries);
      assert.deepEqual(await readModel(map), expected);
      assert.deepEqual(second, whole);
      assert.equal(second.growth, bytesOf(expected, size) - bytesOf(before, size));

      const anew = await build(new Pages(), size, entries, expected);
      assert.deepEqual(anew.root, second.root, 'equal content gives an equal root');

      assert.deepEqual(
        await extentsOf(map.extents()),
        modelExtents(expected.length, size, (chunk) => expected[chunk] !== 0),
      );
      assert.deepEqual(
        await extentsOf(ImageMap.diff(base, map)),
        modelExtents(expected.length, size, (chunk) => expected[chunk] !== before[chunk]),
      );
      const middle = Math.floor(expected.length / 3);
      const cut = await map.names(middle, 7);
      assert.deepEqual(
        Array.from({ length: 7 }, (_, at) => cut.readUInt32LE(at * nameLength + 4)),
        Array.from({ length: 7 }, (_, at) => expected[middle + at] ?? 0),
      );
    }),
    { numRuns: 150 },
  );
});

test('images of different sizes are compared, the shorter one extended with zeros', async () => {
  await fc.assert(
    fc.asyncProperty(scenario, scenario, async (a, b) => {
      const pages = new Pages();
      const make = async ({ size, before }: typeof a): Promise<ImageMap> =>
        pages.map(await build(pages, size, 3, before), size, 3);
      const size = Math.max(a.size, b.size);
      const count = Math.max(a.before.length, b.before.length);
      assert.deepEqual(
        await extentsOf(ImageMap.diff(await make(a), await make(b))),
        modelExtents(count, size, (chunk) => (a.before[chunk] ?? 0) !== (b.before[chunk] ?? 0)),
      );
    }),
  );
});

test('the number of levels is as in docs/formats/vault.md', () => {
  const MiB = 1024 * 1024;
  const levels = (size: number): number => new MapShape(size, 65536).levels;
  assert.deepEqual([0, 1, 64 * MiB, 64 * MiB + 1].map(levels), [1, 1, 1, 2]);
  assert.deepEqual([64 * 1024 * MiB, 64 * 1024 * MiB + 1, 64 * 1024 * 1024 * MiB + 1].map(levels), [2, 3, 4]);
});

test('with pages of 1024, a small change reads and writes one page per level, and so does a diff', async () => {
  const pages = new Pages();
  const chunks = 1024 * 1024 + 5000;
  const size = chunks * chunkSize;
  const shape = new MapShape(size, chunkSize);
  assert.equal(shape.levels, 3);
  let asked = 0;
  const changed: BuildMapOptions['changed'] = (first, count) => {
    asked++;
    const names = Buffer.alloc(count * nameLength);
    for (let at = 0; at < count; at++) names.writeUInt32LE(1 + (first + at), at * nameLength + 4);
    return names;
  };
  const full = await buildMap({ size, chunkSize, changed, namer, pages });
  assert.equal(asked, Math.ceil(chunks / 1024));
  const leaves = Math.ceil(chunks / 1024);
  assert.equal(pages.added, leaves + Math.ceil(leaves / 1024) + 1);
  assert.equal(full.growth, size);
  const base = pages.map(full, size);

  [pages.reads, pages.added, asked] = [0, 0, 0];
  const where = 700_000;
  const touched = [{ offset: where * chunkSize, length: 1 }];
  const model: number[] = [];
  model[where] = 77;
  const second = await build(pages, size, undefined, model, { base, touched, changed: changedTo(model) });
  assert.deepEqual([pages.reads, pages.added], [3, 3]);
  assert.equal(second.growth, 0);

  pages.reads = 0;
  const differences = await extentsOf(ImageMap.diff(base, pages.map(second, size)));
  assert.deepEqual(differences, [{ offset: where * chunkSize, length: chunkSize }]);
  assert.equal(pages.reads, 6);

  pages.reads = 0;
  assert.deepEqual(await extentsOf(ImageMap.diff(base, base)), []);
  assert.equal(pages.reads, 0);

  pages.reads = 0;
  assert.deepEqual(await extentsOf(base.extents()), [{ offset: 0, length: size }]);
  assert.equal(pages.reads, leaves + Math.ceil(leaves / 1024) + 1);
});

test('an empty image has the all-zero name as its root, and is walked without reading', async () => {
  const pages = new Pages();
  const size = 3 * 1024 * 1024 * chunkSize;
  const built = await build(pages, size, undefined, [], { touched: [] });
  assert.ok(isZeroName(built.root));
  const map = pages.map(built, size);
  assert.deepEqual(await extentsOf(map.extents()), []);
  assert.ok((await map.names(5000, 3)).every((byte) => byte === 0));
  assert.equal(pages.reads + pages.added, 0);
});

test('a base of another size and a wrong number of levels are refused', async () => {
  const pages = new Pages();
  const built = await build(pages, 10 * chunkSize, 4, [1, 2, 3]);
  const base = pages.map(built, 10 * chunkSize, 4);
  await assert.rejects(build(pages, 11 * chunkSize, 4, [], { base }), RangeError);
  assert.throws(() => pages.map({ ...built, levels: 3 }, 10 * chunkSize, 4), { code: 'VAULT_DAMAGED' });
});
