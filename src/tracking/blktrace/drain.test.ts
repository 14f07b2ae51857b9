/**
 * Tests the reader against a small model of the kernel: streams of processors that come and go, full buffers, other
 * programs that trace.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { DiskReader, TraceLost } from './disk-reader.ts';
import { type Drained, drain, type Processors } from './drain.ts';
import { Follower, type Following } from './follower.ts';
import { DirtyMap } from './dirty-map.ts';
import type { RelayFiles } from './relay-files.ts';

const unit = 4096;
const units = 256;

class Kernel implements RelayFiles, Processors {
  readonly #streams = new Map<number, Buffer>();
  readonly #open = new Set<number>();
  #online = [0, 1, 2];
  #time = 1000;
  #at = 0;
  /** Functions to run while the reader is between two processors. */
  readonly meanwhile: (() => void)[] = [];
  running = true;
  lost = 0;
  capacity = 1e6;
  /** The most bytes a read returns. */
  readBytes = 1e6;

  constructor() {
    this.record(0, { action: 1, categories: 1 << 10, data: 'clock' });
  }

  record(
    processor: number,
    what: { action: number; categories: number; start?: number; bytes?: number; data?: string },
  ): void {
    if (!this.running) return;
    const data = Buffer.from(what.data ?? '');
    const record = Buffer.alloc(48 + data.length);
    record.writeUInt32LE(0x65617407, 0);
    record.writeBigUInt64LE(BigInt(++this.#time), 8);
    record.writeBigUInt64LE(BigInt((what.start ?? 0) / 512), 16);
    record.writeUInt32LE(what.bytes ?? 0, 24);
    record.writeUInt16LE(what.action, 28);
    record.writeUInt16LE(what.categories, 30);
    record.writeUInt16LE(data.length, 46);
    data.copy(record, 48);
    const stream = this.#streams.get(processor) ?? Buffer.alloc(0);
    if (stream.length + record.length > this.capacity) this.lost++;
    else this.#streams.set(processor, Buffer.concat([stream, record]));
  }

  turn(processor: number, on: boolean): void {
    const others = this.#online.filter((each) => each !== processor);
    if (on || others.length > 0) this.#online = on ? [...others, processor].sort() : others;
  }

  // RelayFiles
  get processors(): readonly number[] {
    return [...this.#open];
  }
  openNew(): void {
    for (const processor of [...this.#streams.keys(), ...this.#online]) this.#open.add(processor);
  }
  read(processor: number, into: Buffer): number {
    const stream = this.#streams.get(processor) ?? Buffer.alloc(0);
    const bytes = stream.copy(into, 0, 0, Math.min(stream.length, this.readBytes));
    this.#streams.set(processor, stream.subarray(bytes));
    return bytes;
  }
  message(text: string): void {
    this.record(this.#at, { action: 2, categories: 1 << 10, data: text });
  }
  dropped(): number {
    return this.lost;
  }
  close(): void {
    this.#open.clear();
  }

  // Processors
  online(): readonly number[] {
    return this.#online;
  }
  moveTo(processor: number): boolean {
    this.meanwhile.shift()?.();
    if (!this.#online.includes(processor)) return false;
    this.#at = processor;
    return true;
  }
  release(): void {
    this.#at = this.#online[0]!;
  }
}

function traced(following: Following): {
  kernel: Kernel;
  reader: DiskReader;
  drained: () => Drained | TraceLost;
} {
  const kernel = new Kernel();
  const follower = new Follower(following);
  const maps = [new Bitmap(units * unit, unit), new Bitmap(units * unit, unit)] as const;
  follower.add('part', 1024 * unit, new DirtyMap(units * unit, unit, [maps[0].buffer, maps[1].buffer]));
  const reader = new DiskReader('/dev/sda', kernel, follower);
  const buffer = Buffer.alloc(4096);
  return { kernel, reader, drained: () => drain([reader], kernel, buffer).get(reader)! };
}

function lossOf({ drained }: ReturnType<typeof traced>): string {
  const result = drained();
  assert.ok(result instanceof TraceLost, 'the loss was not noticed');
  return result.message;
}

const write = 2;
const C = { action: 8, categories: 0x80 | write };
const Q = { action: 1, categories: 0x10 | write };

test('each write that ended before a take is in the take, or in an earlier one that was committed', () => {
  const step = fc.record({
    kind: fc.constantFrom('queue', 'queue', 'complete', 'complete', 'take', 'on', 'off'),
    meanwhile: fc.boolean(),
    processor: fc.nat(5),
    first: fc.nat(units - 1),
    count: fc.integer({ min: 1, max: 4 }),
    commit: fc.boolean(),
  });
  const following = fc.constantFrom<Following[]>('requests', 'bios');
  fc.assert(
    fc.property(
      following,
      fc.array(step, { maxLength: 60 }),
      fc.integer({ min: 7, max: 200 }),
      (how, steps, readBytes) => {
        const world = traced(how);
        const { kernel, reader } = world;
        kernel.readBytes = readBytes;
        let flying: { start: number; bytes: number }[] = [];
        /** Units that ended, or are under way, and must be in the next take. */
        let owed = new Set<number>();
        const unitsOf = ({ start, bytes }: { start: number; bytes: number }) =>
          Array.from({ length: Math.ceil(bytes / unit) }, (_, i) => start / unit + i);
        const act = ({ kind, processor, first, count }: (typeof steps)[number]): void => {
          const online = kernel.online();
          const at = online[processor % online.length]!;
          if (kind === 'queue') {
            const one = { start: first * unit, bytes: Math.min(count, units - first) * unit };
            kernel.record(at, { ...Q, start: one.start + 1024 * unit, bytes: one.bytes });
            flying.push(one);
          } else if (kind === 'complete' && flying.length > 0) {
            const one = flying[processor % flying.length]!;
            flying = flying.filter((other) => other !== one);
            kernel.record(at, { ...C, start: one.start + 1024 * unit, bytes: one.bytes });
            for (const index of unitsOf(one)) owed.add(index);
          } else if (kind === 'on' || kind === 'off') kernel.turn(processor, kind === 'on');
        };
        for (const each of steps) {
          if (each.kind !== 'take') {
            if (each.meanwhile) kernel.meanwhile.push(() => act(each));
            else act(each);
            continue;
          }
          // Writes during the take may be in it, but need not.
          const before = owed;
          const underWay = [...flying];
          owed = new Set();
          const result = world.drained();
          assert.ok(!(result instanceof TraceLost));
          const { map, generation } = reader.follower.take('part', result.time, false);
          for (const index of before) assert.ok(map.has(index), `unit ${index} is missing`);
          if (how === 'bios')
            for (const index of underWay.flatMap(unitsOf))
              assert.ok(map.has(index), `unit ${index} is missing`);
          if (each.commit) {
            owed = new Set([...owed].filter((index) => !map.has(index)));
            reader.follower.dirtyMap('part')!.commit(generation);
          } else for (const index of before) owed.add(index);
        }
      },
    ),
    { numRuns: 300 },
  );
});

test('a trace that another program stopped is noticed', () => {
  const world = traced('requests');
  assert.ok(!(world.drained() instanceof TraceLost));
  world.kernel.running = false;
  assert.match(lossOf(world), /another process stopped it/);
});

test('a trace that was stopped and started again between two drains is noticed', () => {
  const world = traced('requests');
  assert.ok(!(world.drained() instanceof TraceLost));
  world.kernel.record(1, { action: 1, categories: 1 << 10, data: 'clock' });
  assert.match(lossOf(world), /stopped and started again/);
});

test('records that found their buffer full end the trace', () => {
  const world = traced('requests');
  world.kernel.capacity = 500;
  for (let i = 0; i < 20; i++) world.kernel.record(2, { ...C, start: 1024 * unit, bytes: unit });
  assert.match(lossOf(world), /dropped \d+ records/);
});

test('a command past the block layer ends the trace', () => {
  const world = traced('requests');
  world.kernel.record(1, { action: 8, categories: 0x80 | write | (1 << 9), bytes: 512 });
  assert.match(lossOf(world), /passthrough/);
});

test('files that are gone end the trace', () => {
  const world = traced('requests');
  world.kernel.message = () => {
    throw new Error('EIO: i/o error, write');
  };
  assert.match(lossOf(world), /EIO.*removed, or the device is gone/);
});

test('a processor that may not be used ends the trace', () => {
  const world = traced('requests');
  const move = world.kernel.moveTo.bind(world.kernel);
  world.kernel.moveTo = (processor) => processor !== 2 && move(processor);
  assert.match(lossOf(world), /may not run on processor 2/);
});

test('scattered discards of one request are kept until they are known to have ended', () => {
  const { kernel, reader, drained } = traced('requests-discards');
  const discard = 1 << 13;
  const base = 1024 * unit;
  const take = (frozen: boolean) => {
    const { time } = drained() as Drained;
    const { map, generation } = reader.follower.take('part', time, frozen);
    const found = [...map.extents()].map(({ offset, length }) => [offset / unit, length / unit]);
    reader.follower.dirtyMap('part')!.commit(generation);
    return found;
  };
  kernel.record(0, {
    action: 1,
    categories: 0x10 | write | discard,
    start: base + 10 * unit,
    bytes: 2 * unit,
  });
  kernel.record(0, { action: 1, categories: 0x10 | write | discard, start: base + 50 * unit, bytes: unit });
  kernel.record(0, { action: 1, categories: 0x10 | write | discard, start: base + 90 * unit, bytes: unit });
  assert.deepEqual(take(false), [
    [10, 2],
    [50, 1],
    [90, 1],
  ]);
  // One completion for the first two, as if they touched; and one for the third.
  kernel.record(1, {
    action: 8,
    categories: 0x80 | write | discard,
    start: base + 10 * unit,
    bytes: 3 * unit,
  });
  kernel.record(1, { action: 8, categories: 0x80 | write | discard, start: base + 90 * unit, bytes: unit });
  assert.deepEqual(take(false), [
    [10, 3],
    [50, 1],
    [90, 1],
  ]);
  assert.deepEqual(take(true), [
    [10, 2],
    [50, 1],
  ]);
});
