/** The transfer of a copying thread between a device and a target in memory, for its tests. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Control } from '../../src/backup/copy/control.ts';
import type { PassMode } from '../../src/backup/copy/messages.ts';
import { Samples } from '../../src/backup/copy/samples.ts';
import { SegmentCursor, maximumItems } from '../../src/backup/copy/segments.ts';
import { SpoolRoom } from '../../src/backup/copy/spool-room.ts';
import { WitnessTaker } from '../../src/backup/copy/witnesses.ts';
import { CopyLoop } from '../../src/backup/copy/copy-loop.ts';
import { Bitmap } from '../../src/base/bitmap.ts';
import { AgentError } from '../../src/base/errors.ts';
import type { Extent } from '../../src/base/extents.ts';
import type { DirectSource } from '../../src/block/source.ts';
import type { Target } from '../../src/block/target.ts';
import {
  FingerprintFile,
  UnitHasher,
  createFingerprintFile,
  fingerprintUnit,
} from '../../src/tracking/fingerprints.ts';
import { atEnd, type EndingTest } from './cleanup.ts';

/** A device in memory. Reads of `bad` sectors (512 bytes, by offset) fail. */
export class MemorySource implements DirectSource {
  readonly name = 'memory';
  readonly sectorSize = 512;
  readonly alignment = 512;
  readonly data: Buffer;
  bad = new Set<number>();
  reads = 0;
  constructor(data: Buffer) {
    this.data = data;
  }
  get size(): number {
    return this.data.length;
  }
  readAt(offset: number, length: number): Promise<Uint8Array> {
    return Promise.resolve(this.data.subarray(offset, offset + length));
  }
  readInto(buffer: Uint8Array, offset: number): void {
    this.reads++;
    for (const sector of this.bad)
      if (sector >= offset && sector < offset + buffer.length)
        throw new AgentError('DEVICE_READ_ERROR', `bad sector at ${sector}`);
    this.data.copy(buffer, 0, offset, offset + buffer.length);
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** A target in memory that delays its answers by a turn, and can fail a write. */
export class MemoryTarget implements Target {
  readonly name = 'target';
  readonly readOnly = false;
  readonly minimumBlock: number;
  readonly maximumPayload: number;
  readonly depth = 4;
  readonly data: Buffer;
  readonly abilities;
  writes = 0;
  mostUnderWay = 0;
  failAt = Infinity;
  #underWay = 0;
  constructor(
    size: number,
    options: { writeZeroes?: boolean; minimumBlock?: number; maximumPayload?: number } = {},
  ) {
    this.maximumPayload = options.maximumPayload ?? 1 << 25;
    this.data = Buffer.alloc(size, 0xee);
    this.minimumBlock = options.minimumBlock ?? 1;
    this.abilities = {
      flush: true,
      writeZeroes: options.writeZeroes ?? true,
      trim: false,
      read: true,
      multiConnection: true,
      zeroMap: false,
    };
  }
  get size(): number {
    return this.data.length;
  }
  async write(offset: number, data: Uint8Array): Promise<void> {
    assert.equal(offset % this.minimumBlock, 0);
    assert.equal(data.length % this.minimumBlock, 0);
    assert.ok(data.length <= this.maximumPayload);
    this.mostUnderWay = Math.max(this.mostUnderWay, ++this.#underWay);
    const number = ++this.writes;
    await new Promise((resolve) => setImmediate(resolve));
    this.#underWay--;
    if (number >= this.failAt) throw new AgentError('NBD_CONNECTION_LOST', 'cut');
    // The data is taken only now: a buffer that was reused too early shows as wrong data.
    this.data.set(data, offset);
  }
  async writeZeroes(offset: number, length: number): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
    this.data.fill(0, offset, offset + length);
  }
  trim(): Promise<void> {
    return Promise.resolve();
  }
  flush(): Promise<void> {
    return Promise.resolve();
  }
  read(offset: number, length: number): Promise<Uint8Array> {
    return Promise.resolve(Buffer.from(this.data.subarray(offset, offset + length)));
  }
  // eslint-disable-next-line @typescript-eslint/require-await -- the shape is asynchronous
  async *zeroExtents(): AsyncGenerator<Extent> {
    return;
  }
  close(): Promise<void> {
    return Promise.resolve();
  }
  destroy(): void {
    // nothing to break
  }
}

export interface Rig {
  source: MemorySource;
  target: MemoryTarget;
  transfer: CopyLoop;
  control: Control;
  unconfirmed: Bitmap;
  found: Bitmap;
  targetZero: Bitmap;
  samples: Samples;
  witnesses: WitnessTaker;
  /** Blocks in the spool. A test removes the blocks that it writes to the source. */
  stashed: Bitmap;
  /** `set`: the blocks that are copied or kept; in comparing modes, the blocks that are compared. */
  run: (
    mode: PassMode,
    set: Bitmap,
    options?: { readonly mayOverflow?: boolean },
  ) => ReturnType<CopyLoop['run']>;
  /** Sends the blocks of the set that are in the spool. */
  sendSpool: (set: Bitmap) => Promise<void>;
  all: Bitmap;
}

export function rig(
  t: EndingTest,
  data: Buffer,
  options: {
    target?: MemoryTarget;
    fingerprints?: boolean;
    onReadError?: 'fail' | 'zero';
    spoolBytes?: number;
    /** Bytes per bit of the sent blocks. */
    unit?: number;
  } = {},
): Rig {
  const source = new MemorySource(data);
  const target = options.target ?? new MemoryTarget(data.length);
  const control = new Control(1);
  const items = new Float64Array(maximumItems * 2);
  const unconfirmed = new Bitmap(data.length, options.unit ?? fingerprintUnit);
  const targetZero = new Bitmap(data.length, fingerprintUnit);
  const send = new Bitmap(data.length, options.unit ?? fingerprintUnit);
  const found = new Bitmap(data.length, fingerprintUnit);
  const stashed = new Bitmap(data.length, options.unit ?? fingerprintUnit);
  const all = new Bitmap(data.length, fingerprintUnit);
  all.fill(true);
  const samples = new Samples();
  samples.choose(all);
  let fingerprints: FingerprintFile | undefined;
  if (options.fingerprints === true) {
    const directory = mkdtempSync(join(tmpdir(), 'transfer-'));
    atEnd(t, () => rmSync(directory, { recursive: true }));
    createFingerprintFile(join(directory, 'prints'), data.length);
    const file = new FingerprintFile(join(directory, 'prints'));
    atEnd(t, () => file.close());
    fingerprints = file;
  }
  const hasher = new UnitHasher(Buffer.alloc(32, 1));
  const witnesses = new WitnessTaker(hasher, 1);
  const transfer = new CopyLoop(target, {
    thread: 0,
    source,
    control,
    items,
    send,
    unconfirmed,
    stashed,
    found,
    targetZero,
    samples,
    witnesses,
    hasher,
    fingerprints,
    rate: undefined,
    onReadError: options.onReadError ?? 'fail',
    room: SpoolRoom.create(options.spoolBytes ?? 4 << 20),
    depth: 3,
  });
  const run: Rig['run'] = async (mode, set, { mayOverflow = false } = {}) => {
    const stashes = mode === 'stash' || mode === 'frozen';
    const count = stashes ? 0 : new SegmentCursor(set).next(items, Infinity).count;
    // Frozen passes that compare send the blocks that differ. The other passes send the set.
    if (mode === 'copy' || stashes) send.load(set.content);
    else send.fill(false);
    found.fill(false);
    control.rewind();
    const result = await transfer.run({ mode, count, threads: 1, share: 0, mayOverflow, considerate: false });
    if (stashes) stashed.or(send);
    return result;
  };
  const sendSpool = async (set: Bitmap): Promise<void> => {
    send.copy(set);
    found.fill(false);
    await transfer.sendSpool();
  };
  return {
    ...{ source, target, transfer, control, unconfirmed, found, targetZero, samples, stashed },
    ...{ witnesses, run, sendSpool, all },
  };
}

/** Returns random data with runs of zero units, and a tail that is not a multiple of the unit. */
export function device(units: number, zeroUnits: readonly number[], tail = 512): Buffer {
  const data = randomBytes((units - 1) * fingerprintUnit + tail);
  for (const unit of zeroUnits) data.subarray(unit * fingerprintUnit, (unit + 1) * fingerprintUnit).fill(0);
  return data;
}
