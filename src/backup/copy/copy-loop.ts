/**
 * The loop of a copying thread: it takes items until none is left, reads them piece by piece, and keeps the target
 * busy. Reads block the thread, so this code runs in worker threads only.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { MiB, isZero } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { type Extent, alignedIn, alignedOut, clipped, merged, pieces } from '../../base/extents.ts';
import { isReadError } from '../../block/read-errors.ts';
import type { Target } from '../../block/target.ts';
import { allMarked, markShared } from './atomic-bitmap.ts';
import { PieceReader, type PieceReaderDependencies } from './piece-reader.ts';
import { fingerprintSize, fingerprintUnit } from '../../tracking/fingerprints.ts';
import {
  type CompareResult,
  type PassMode,
  type RunArguments,
  type RunResult,
  isFrozen,
} from './messages.ts';
import { TargetWriter, requestSize, type Slot } from './target-writer.ts';
import { ReadBack } from './read-back.ts';
import { Spool, type SpooledGranule, spoolFull } from './spool.ts';
import type { SpoolRoom } from './spool-room.ts';
import { type Share, ownReads } from './stripes.ts';
import type { Witness, WitnessTaker } from './witnesses.ts';
import type { Bitmap } from '../../base/bitmap.ts';

/** Bytes of one trim. A job can be cancelled between two trims. */
const trimSize = 1024 * MiB;

export interface CopyLoopDependencies extends PieceReaderDependencies {
  /** Pairs of offset (a multiple of the fingerprint unit) and length. */
  readonly items: Float64Array;
  /** For the bitmaps, see ThreadSetup in messages.ts. */
  readonly send: Bitmap;
  readonly unconfirmed: Bitmap;
  readonly stashed: Bitmap;
  readonly found: Bitmap;
  readonly targetZero: Bitmap;
  readonly witnesses: WitnessTaker;
  readonly rate: number | undefined;
  readonly room: SpoolRoom;
  /** Requests that are under way at the same time, at most. */
  readonly depth: number;
}

export class CopyLoop {
  readonly #dependencies: CopyLoopDependencies;
  readonly #writer: TargetWriter;
  readonly #pieces: PieceReader;
  readonly #spool: Spool;
  readonly #readBack: ReadBack;
  readonly #reads = new Set<Promise<void>>();
  #overflow = 0;
  /** Fingerprint units with a block that was sent within a freeze, when no file may be written. */
  readonly #overflown = new Set<number>();
  /** Bytes sent within a freeze since the spool was dropped. */
  #overflownBytes = 0;

  constructor(target: Target, dependencies: CopyLoopDependencies) {
    this.#dependencies = dependencies;
    this.#writer = new TargetWriter(target, dependencies);
    this.#pieces = new PieceReader(dependencies);
    this.#spool = new Spool(dependencies.room, { size: dependencies.send.size, block: this.#block });
    this.#readBack = new ReadBack(() => this.target, dependencies);
  }

  get target(): Target {
    return this.#writer.target;
  }

  useTarget(target: Target): void {
    this.#writer.useTarget(target);
  }

  /** The size of a block that the spool keeps or not, in bytes. */
  get #block(): number {
    return Math.min(this.#dependencies.send.unit, fingerprintUnit);
  }

  /** Processes the segment's items together with the other threads. Throws the first failure. */
  async run({ mode, count, threads, share, mayOverflow }: RunArguments): Promise<RunResult> {
    const { control, items, stashed } = this.#dependencies;
    this.#pieces.readErrors = [];
    this.#overflow = 0;
    this.#readBack.takeMismatches();
    // A comparing freeze has several segments, and the spool keeps the blocks of all of them.
    if (mode === 'stash' || mode === 'frozen') this.#spool.retain(stashed);
    await this.#session(async () => {
      if (mode === 'stash' || mode === 'frozen')
        await this.#stash(mode, { thread: share, threads }, mayOverflow);
      for (let item = control.takeItem(); item < count; item = control.takeItem()) {
        const offset = items[item * 2] ?? 0;
        const end = offset + (items[item * 2 + 1] ?? 0);
        for (let at = offset; at < end; at += requestSize) {
          await this.#gate(mode);
          const length = Math.min(requestSize, end - at);
          if (mode === 'verify') await this.#ahead(this.#readBack.verify(at, length));
          else await this.#piece(mode, at, length, mayOverflow);
        }
      }
      this.#writer.sendZeroes();
      await Promise.all(this.#reads);
    });
    return {
      readErrors: this.#pieces.readErrors,
      overflow: this.#overflow,
      mismatches: this.#readBack.takeMismatches(),
    };
  }

  /** Reads and hashes `count` items, starting at `first`. Sends nothing. */
  async measure(first: number, count: number): Promise<{ bytes: number; ms: number }> {
    const { items, source, hasher } = this.#dependencies;
    const slot = await this.#writer.slot();
    const start = performance.now();
    let done = 0;
    for (let item = first; item < first + count; item++) {
      const offset = items[item * 2] ?? 0;
      const end = offset + (items[item * 2 + 1] ?? 0);
      for (let at = offset; at < end; at += requestSize) {
        const data = slot.buffer.subarray(0, Math.min(requestSize, end - at));
        try {
          source.readInto(data, at);
        } catch (error) {
          // The copy reports bad sectors. Here, such a place is only left out of the measurement.
          if (isReadError(error)) continue;
          throw error;
        }
        for (let unit = 0; unit < data.length; unit += fingerprintUnit)
          hasher.hash(data.subarray(unit, unit + fingerprintUnit));
        done += data.length;
      }
    }
    this.#writer.release(slot);
    return { bytes: done, ms: performance.now() - start };
  }

  /**
   * Returns how many granules of the spool lack blocks that must be sent with them. The target is read for these
   * blocks.
   */
  spoolLacks(): number {
    if (this.target.minimumBlock <= this.#block) return 0;
    let lacking = 0;
    for (const { whole } of this.#spool.granules(this.#granule)) if (!whole) lacking++;
    return lacking;
  }

  /**
   * Returns the bytes of the `send` blocks that this thread read for the freeze. They are in the spool, or were sent
   * for lack of room.
   */
  spoolHolds(): number {
    return this.#spool.bytesOf(this.#dependencies.send) + this.#overflownBytes;
  }

  /**
   * Sends the blocks of the spool that are set in `send`. The blocks stay until `dropSpool`, since they are sent again
   * if a connection is lost. Marks in `found` the units whose fingerprint is then known.
   */
  async sendSpool(): Promise<void> {
    await this.#session(async () => {
      for (const unit of this.#overflown) this.#forgetUnit(unit);
      for (const granule of this.#spool.granules(this.#granule)) {
        await this.#gate('copy');
        const slot = await this.#writer.slot();
        await this.#ahead(this.#sendGranule(slot, granule));
      }
      await Promise.all(this.#reads);
      this.#writer.sendZeroes();
    });
  }

  /** Bytes that are completed together: the target's smallest block, but at least a fingerprint unit. */
  get #granule(): number {
    return Math.max(this.target.minimumBlock, fingerprintUnit);
  }

  /**
   * Sends the blocks of a granule. If the target's smallest block is larger than a block, the blocks in between are
   * read from the target. These are not pending, so they match the device at the freeze, or they are not in use.
   */
  async #sendGranule(slot: Slot, granule: SpooledGranule): Promise<void> {
    try {
      const { offset, length, whole } = granule;
      const runs = [...this.#runsOf(granule)];
      // All blocks of the granule were freed after they had been read.
      if (runs.length === 0) return;
      const { minimumBlock, abilities } = this.target;
      const data = slot.buffer.subarray(0, length);
      const completed = !whole && minimumBlock > this.#block;
      if (completed) (await this.#readBack.read(offset, length)).copy(data);
      this.#spool.copyTo(granule, data);
      // Data that a vault returns is authenticated. Data that other targets return does not prove that it is right.
      this.#notePrints(granule, data, whole || (completed && abilities.seals === true));
      for (const { offset: from, length: bytes } of runs) {
        const zero = isZero(data.subarray(from, from + bytes));
        if (zero) await this.#zeroes(offset + from, bytes);
        else {
          await this.#pace(bytes);
          this.#writer.data(slot, from, offset + from, bytes);
        }
      }
    } finally {
      this.#writer.release(slot);
    }
  }

  /** Returns the ranges to send, from the start of the granule, rounded out to the target's smallest block. */
  *#runsOf({ offset, length, blocks }: SpooledGranule): Generator<Extent> {
    const { send } = this.#dependencies;
    const wanted = blocks.filter((block) => send.has(Math.floor(block / send.unit)));
    const extents = wanted.map((block) => ({ offset: block - offset, length: this.#block }));
    yield* merged(alignedOut(extents, Math.max(1, this.target.minimumBlock), length));
  }

  /**
   * Updates the fingerprints of the granule's units that have blocks in the spool. Unless `known`, they become unknown.
   */
  #notePrints({ offset, blocks }: SpooledGranule, data: Buffer, known: boolean): void {
    const { fingerprints, hasher, samples, found } = this.#dependencies;
    for (const unit of new Set(blocks.map((block) => Math.floor(block / fingerprintUnit)))) {
      if (!known) {
        this.#forgetUnit(unit);
        continue;
      }
      const from = unit * fingerprintUnit - offset;
      const print = hasher.hash(data.subarray(from, Math.min(from + fingerprintUnit, data.length)));
      fingerprints?.write(unit, print);
      samples.within(unit, unit + 1, (sample) => samples.record(sample, print));
      markShared(found, unit * fingerprintUnit, fingerprintUnit);
    }
  }

  #forgetUnit(unit: number): void {
    const { fingerprints, samples } = this.#dependencies;
    fingerprints?.write(unit, unknownPrint);
    samples.within(unit, unit + 1, (sample) => samples.forget(sample));
  }

  /** Tells the target that it may free the space of these blocks. Returns how many bytes were named. */
  async trim(freed: Bitmap): Promise<{ bytes: number }> {
    const { abilities, minimumBlock } = this.target;
    let bytes = 0;
    await this.#session(async () => {
      for (const { offset, length } of pieces(alignedIn(freed.extents(), minimumBlock), trimSize)) {
        await this.#gate('copy');
        bytes += length;
        await this.#ahead(
          abilities.trim
            ? this.target.trim(offset, length)
            : this.target.writeZeroes(offset, length, { hole: true }),
        );
      }
      await Promise.all(this.#reads);
    });
    return { bytes };
  }

  dropSpool(): void {
    this.#spool.clear();
    this.#overflown.clear();
    this.#overflownBytes = 0;
  }

  /** Reads the sampled units back. Throws TARGET_MISMATCH. */
  checkSamples(): Promise<{ bytes: number }> {
    return this.#readBack.checkSamples();
  }

  /** Reads the places from the target and compares them with their hashes. */
  compare(places: readonly Witness[]): Promise<CompareResult> {
    return this.#readBack.compare(places, this.#dependencies.depth);
  }

  /** Runs `work`, then waits for everything that it started, and throws the first failure of either. */
  async #session(work: () => Promise<void>): Promise<void> {
    this.#writer.begin();
    try {
      await work();
    } catch (error) {
      this.#writer.fail(error);
    }
    await this.#writer.settled();
    this.#writer.throwIfFailed();
  }

  /** Waits while the job is paused, and to spare other work. Throws if the job is stopped or a request has failed. */
  async #gate(mode: PassMode): Promise<void> {
    const { control, manners } = this.#dependencies;
    // A pause must not lengthen a freeze.
    while (control.paused && !control.stopped && !isFrozen(mode)) await sleep(20);
    await manners?.pause();
    if (control.stopped) throw new AgentError('CANCELLED', 'Cancelled');
    this.#writer.throwIfFailed();
  }

  async #pace(bytes: number): Promise<void> {
    const { control, rate } = this.#dependencies;
    if (rate === undefined || bytes === 0) return;
    const wait = control.book(bytes, rate);
    // The wait is split, so that a cancel takes effect soon even at a low rate.
    for (let left = wait; left > 0 && !control.stopped; left -= 100) await sleep(Math.min(left, 100));
  }

  /** Reads this thread's share of the blocks that are set in `send`, and keeps them in the spool. */
  async #stash(mode: PassMode, share: Share, mayOverflow: boolean): Promise<void> {
    const { control, thread, send } = this.#dependencies;
    for (const { offset, length } of ownReads(send.extents(), share)) {
      await this.#gate(mode);
      const slot = await this.#writer.slot();
      try {
        const start = performance.now();
        const wanted = [...clipped(send.extents(offset, offset + length), offset, offset + length)];
        await this.#pieces.fill(offset, slot.buffer.subarray(0, length), wanted);
        for (const extent of wanted)
          this.#keep(slot, extent.offset - offset, extent.offset, extent.length, {
            frozen: isFrozen(mode),
            mayOverflow,
          });
        control.add(thread, 'scattered', 1);
        control.add(thread, 'scatteredMs', performance.now() - start);
      } finally {
        this.#writer.release(slot);
      }
    }
  }

  async #piece(mode: PassMode, offset: number, length: number, mayOverflow: boolean): Promise<void> {
    const slot = await this.#writer.slot();
    try {
      await this.#pieces.read(offset, slot.buffer.subarray(0, length));
      if (mode === 'compare') this.#compare(offset, length);
      else if (mode === 'copy') await this.#copy(slot, offset, length);
      else this.#freeze(slot, offset, length, mayOverflow);
    } finally {
      this.#writer.release(slot);
    }
  }

  #compare(offset: number, length: number): void {
    const { control, thread, found } = this.#dependencies;
    this.#pieces.loadFingerprints();
    for (let unit = 0; unit < this.#pieces.units; unit++) {
      const at = unit * fingerprintUnit;
      const bytes = Math.min(fingerprintUnit, length - at);
      const differs = this.#pieces.differs(unit);
      if (differs) markShared(found, offset + at, bytes);
      control.add(thread, differs ? 'different' : 'same', bytes);
    }
  }

  async #copy(slot: Slot, offset: number, length: number): Promise<void> {
    // These units are still pending. Their fingerprints are valid only when the pending map no longer names them.
    this.#pieces.saveFingerprints();
    for (const { from, length: bytes, zero } of this.#runs(offset, length, () => false)) {
      if (!zero) await this.#pace(bytes);
      this.#send(slot, from, offset + from, bytes, zero);
    }
  }

  #freeze(slot: Slot, offset: number, length: number, mayOverflow: boolean): void {
    const { control, thread, found } = this.#dependencies;
    this.#pieces.loadFingerprints();
    for (let unit = 0; unit < this.#pieces.units; unit++)
      if (this.#pieces.differs(unit)) markShared(found, offset + unit * fingerprintUnit, fingerprintUnit);
    const runs = this.#runs(offset, length, (unit) => this.#pieces.differs(unit));
    for (const { from, length: bytes } of runs) {
      control.add(thread, 'different', bytes);
      this.#keep(slot, from, offset + from, bytes, { frozen: true, mayOverflow });
    }
  }

  /**
   * Returns the ranges of the piece that the target needs: the blocks set in `send`, and the whole units that `whole`
   * chooses. Adjacent ranges are joined if both are zeros, or neither is.
   */
  *#runs(offset: number, length: number, whole: (unit: number) => boolean): Generator<Run> {
    // The usual case of a full backup: no unit has to be looked up.
    const all = allMarked(this.#dependencies.send, offset, length);
    let run: Run | undefined;
    // The smallest block of a target may be several units.
    const step = Math.max(1, this.target.minimumBlock / fingerprintUnit);
    for (let unit = 0; unit < this.#pieces.units; unit += step) {
      const group = Array.from({ length: Math.min(step, this.#pieces.units - unit) }, (_, i) => unit + i);
      const start = offset + unit * fingerprintUnit;
      const end = Math.min(start + step * fingerprintUnit, offset + length);
      const extents =
        all || group.some(whole) ? [{ offset: start, length: end - start }] : this.#wanted(start, end);
      let zero: boolean | undefined;
      for (const extent of extents) {
        zero ??= group.map((each) => this.#pieces.touch(each)).every((isZero) => isZero);
        const from = extent.offset - offset;
        if (run?.zero === zero && run.from + run.length === from) run.length += extent.length;
        else {
          if (run !== undefined) yield run;
          run = { from, length: extent.length, zero };
        }
      }
    }
    if (run !== undefined) yield run;
  }

  /** Returns the blocks of `[start, end)` that are set in `send`, rounded out to the target's smallest block. */
  #wanted(start: number, end: number): Iterable<Extent> {
    const { send } = this.#dependencies;
    const block = this.target.minimumBlock;
    // One bit may stand for more than a piece.
    const extents = clipped(send.extents(start, end), start, end);
    return block <= send.unit ? extents : merged(alignedOut(extents, block, end));
  }

  /** Keeps whole blocks in the spool. Blocks without room are sent at once, if that is allowed. */
  #keep(
    slot: Slot,
    from: number,
    offset: number,
    length: number,
    { frozen, mayOverflow }: { readonly frozen: boolean; readonly mayOverflow: boolean },
  ): void {
    for (let at = 0; at < length; at += this.#block) {
      const bytes = Math.min(this.#block, length - at);
      const data = slot.buffer.subarray(from + at, from + at + bytes);
      if (this.#spool.add(offset + at, data, { frozen })) continue;
      if (!mayOverflow) throw spoolFull(this.target.name, this.#dependencies.room.limit);
      this.#overflow += bytes;
      this.#overflownBytes += bytes;
      this.#overflown.add(Math.floor((offset + at) / fingerprintUnit));
      // The rate limit does not apply here: it would make the freeze longer.
      this.#send(slot, from + at, offset + at, bytes, isZero(data));
    }
  }

  #send(slot: Slot, from: number, offset: number, length: number, zero: boolean): void {
    if (zero && this.#writer.areZero(offset, length)) return;
    if (zero && this.target.abilities.writeZeroes) {
      this.#writer.zeroes(offset, length);
      return;
    }
    this.#writer.data(slot, from, offset, length);
  }

  async #zeroes(offset: number, length: number): Promise<void> {
    if (this.#writer.areZero(offset, length)) return;
    if (this.target.abilities.writeZeroes) this.#writer.zeroes(offset, length);
    else
      for (let at = 0; at < length; at += requestSize)
        await this.#writer.owned(Buffer.alloc(Math.min(requestSize, length - at)), offset + at);
  }

  /** Lets a read from the target continue while more are requested. Waits if enough are under way. */
  async #ahead(read: Promise<void>): Promise<void> {
    const settled: Promise<void> = read
      .catch((error: unknown) => this.#writer.fail(error))
      .finally(() => this.#reads.delete(settled));
    this.#reads.add(settled);
    if (this.#reads.size >= this.#dependencies.depth) await Promise.race(this.#reads);
  }
}

const unknownPrint = Buffer.alloc(fingerprintSize);

/** Bytes of a piece that go to the target. `from` counts from the start of the piece. */
interface Run {
  readonly from: number;
  length: number;
  readonly zero: boolean;
}
