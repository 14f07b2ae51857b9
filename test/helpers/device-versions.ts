/**
 * The content of a device at several moments, in memory. Equal chunks are stored once, zeros not at all.
 *
 * Also a property of kept used maps over these versions. A map is read while the device changes, and is then
 * brought up to date from the tracked writes. It must equal the map that a whole reading gives.
 */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import fc from 'fast-check';
import { Bitmap } from '../../src/base/bitmap.ts';
import { KiB } from '../../src/base/bytes.ts';
import type { ReadAt } from '../../src/block/source.ts';
import { KeptMap } from '../../src/filesystems/kept-map.ts';
import { markUsed } from '../../src/filesystems/mark-used.ts';
import type { MountState } from '../../src/filesystems/used-map.ts';

const chunkSize = 64 * KiB;
/** Exactly the sectors that differ count as written. */
const sector = 512;
const zeros = Buffer.alloc(chunkSize);

export class DeviceVersions {
  readonly size: number;
  readonly #versions: (Buffer | undefined)[][] = [];
  readonly #different = new Map<string, readonly number[]>();

  constructor(size: number) {
    this.size = size;
  }

  get count(): number {
    return this.#versions.length;
  }

  async addFile(path: string): Promise<void> {
    const file = await open(path, 'r');
    try {
      await this.add(async (offset, length) => {
        const { bytesRead, buffer } = await file.read(Buffer.alloc(length), 0, length, offset);
        assert.equal(bytesRead, length);
        return buffer;
      });
    } finally {
      await file.close();
    }
  }

  async add(readAt: ReadAt): Promise<void> {
    const before = this.#versions.at(-1);
    const chunks: (Buffer | undefined)[] = [];
    for (let at = 0; at < this.size; at += chunkSize) {
      const data = Buffer.from(await readAt(at, Math.min(chunkSize, this.size - at)));
      const same = before?.[at / chunkSize];
      if (data.compare(zeros, 0, data.length) === 0) chunks.push(undefined);
      else chunks.push(same?.equals(data) === true ? same : data);
    }
    this.#versions.push(chunks);
  }

  /** Returns a reader: sectors for which `choose` is true are as in version `b`, the others as in `a`. */
  mixed(a: number, b: number, choose: (sector: number) => boolean): ReadAt {
    return (offset, length) => {
      const data = this.#read(a, offset, length);
      if (a !== b)
        for (const each of this.differing(a, b)) {
          const at = each * sector - offset;
          if (at + sector <= 0 || at >= length || !choose(each)) continue;
          const from = Math.max(0, at);
          const to = Math.min(length, at + sector);
          this.#read(b, offset + from, to - from).copy(data, from);
        }
      return Promise.resolve(data);
    };
  }

  #read(version: number, offset: number, length: number): Buffer {
    assert.ok(offset >= 0 && offset + length <= this.size, `read of ${length} at ${offset} of ${this.size}`);
    const data = Buffer.alloc(length);
    const chunks = this.#versions[version]!;
    for (let at = offset; at < offset + length;) {
      const index = Math.floor(at / chunkSize);
      const end = Math.min(offset + length, (index + 1) * chunkSize);
      chunks[index]?.copy(data, at - offset, at - index * chunkSize, end - index * chunkSize);
      at = end;
    }
    return data;
  }

  /** Returns the numbers of the sectors that differ, in order. */
  differing(a: number, b: number): readonly number[] {
    const key = `${Math.min(a, b)} ${Math.max(a, b)}`;
    let found = this.#different.get(key);
    if (found === undefined) this.#different.set(key, (found = [...this.#compare(a, b)]));
    return found;
  }

  *#compare(a: number, b: number): Generator<number> {
    for (const [index, one] of this.#versions[a]!.entries()) {
      const other = this.#versions[b]![index];
      if (one === other) continue;
      const length = Math.min(chunkSize, this.size - index * chunkSize);
      for (let at = 0; at < length; at += sector) {
        const end = Math.min(at + sector, length);
        if ((one ?? zeros).compare(other ?? zeros, at, end, at, end) !== 0)
          yield (index * chunkSize + at) / sector;
      }
    }
  }
}

/** One reading. The device is as in `from` when it begins, and as in `to` when it ends. */
interface Step {
  readonly from: number;
  readonly to: number;
  readonly seed: number;
}

export interface KeptFigures {
  runs: number;
  groups: number;
  groupsRead: number;
  whole: number;
}

/** Runs the property. Returns how much the last readings read. Each `unit` is in bytes. */
export async function keptEqualsWhole(versions: DeviceVersions, runs: number): Promise<KeptFigures> {
  const figures = { runs: 0, groups: 0, groupsRead: 0, whole: 0 };
  const version = fc.nat(versions.count - 1);
  const steps = fc.array(fc.record({ from: version, to: version, seed: fc.nat() }), {
    minLength: 1,
    maxLength: 3,
  });
  const unit = fc.constantFrom(512, 4 * KiB, 64 * KiB);
  const markUnit = fc.constantFrom(512, 4 * KiB, 128 * KiB);
  const property = fc.asyncProperty(steps, version, unit, markUnit, async (...history) =>
    check(versions, history, figures),
  );
  await fc.assert(property, { numRuns: runs });
  return figures;
}

async function check(
  versions: DeviceVersions,
  [steps, last, unit, markUnit]: readonly [readonly Step[], number, number, number],
  figures: KeptFigures,
): Promise<void> {
  const { size } = versions;
  const bitmap = new Bitmap(size, unit);
  const kept = new KeptMap(bitmap);
  let written: Bitmap | undefined;
  let now: number | undefined;
  const write = (to: number): void => {
    if (now !== undefined)
      for (const each of versions.differing(now, to)) written?.mark(each * sector, sector);
    now = to;
  };
  const read = (state: MountState, readAt: ReadAt): ReturnType<KeptMap['read']> => {
    const since = written;
    // Writes from now on count for the next reading.
    written = new Bitmap(size, markUnit);
    return kept.read(readAt, sector, { state }, since);
  };
  for (const { from, to, seed } of steps) {
    write(from);
    const reading = read(
      'live',
      versions.mixed(from, to, (each) => isChosen(each, seed)),
    );
    write(to);
    await reading;
  }
  write(last);
  const readAt = versions.mixed(last, last, () => false);
  const partial = await read('frozen', readAt);
  const expected = new Bitmap(size, unit);
  const whole = await markUsed(expected, readAt, size, sector, { state: 'frozen' });
  assert.equal(whole.everything, false, whole.warnings.join());
  const { groups, groupsRead, groupsInFlux, whyAll, ...marked } = partial;
  assert.equal(groupsInFlux, 0);
  assert.deepEqual(marked, whole);
  assert.deepEqual([...bitmap.extents()], [...expected.extents()]);
  figures.runs++;
  figures.groups += groups;
  figures.groupsRead += groupsRead;
  if (whyAll !== undefined) figures.whole++;
}

function isChosen(number: number, seed: number): boolean {
  return (Math.imul(number ^ seed, 0x9e3779b1) & 0x10000) !== 0;
}
