/**
 * The loop of a copying thread: it takes items until there are none, reads them piece by piece, and keeps the target busy.
 * Reads block the thread, so this runs in worker threads only.
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

/** Bytes of one trim: between two a job can be cancelled. */
const trimSize = 1024 * MiB;

export interface CopyLoopDependencies extends PieceReaderDependencies {
  /** Pairs of offset (a multiple of the fingerprint unit) and length. */
  readonly items: Float64Array;
  /** See ThreadSetup in messages.ts for the bitmaps. */
  readonly send: Bitmap;
  readonly unconfirmed: Bitmap;
  readonly stashed: Bitmap;
  readonly found: Bitmap;
  readonly targetZero: Bitmap;
  readonly witnesses: WitnessTaker;
  readonly rate: number | undefined;
  readonly room: SpoolRoom;
  /** Requests under way at once. */
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
  /** Fingerprint units of which a block was sent within a freeze, where nothing may be written to files. */
  readonly #overflown = new Set<number>();
  /** All that was sent within a freeze since the spool was dropped. */
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

  /** Bytes that the spool keeps or not. */
  get #block(): number {
    return Math.min(this.#dependencies.send.unit, fingerprintUnit);
  }

  /** Works through the segment's items together with the other threads. Throws the first failure. */
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

  /** Reads and hashes `count` items from `first` on, sending nothing. */
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
          // A bad sector is for the copy to deal with; here it is a place that cannot be measured.
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

  /** Granules of the spool that lack blocks which the target has to be sent along: it is read for them. */
  spoolLacks(): number {
    if (this.target.minimumBlock <= this.#block) return 0;
    let lacking = 0;
    for (const { whole } of this.#spool.granules(this.#granule)) if (!whole) lacking++;
    return lacking;
  }

  /** Bytes of the blocks set in `send` that this thread read for the freeze: in the spool, or sent for lack of room. */
  spoolHolds(): number {
    return this.#spool.bytesOf(this.#dependencies.send) + this.#overflownBytes;
  }

  /**
   * Sends what the spool holds of the blocks that are set in `send`; it stays until `dropSpool`, since a lost connection
   * needs it again. Marks in `found` the units whose fingerprint is known then.
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

  /** Bytes that are completed together: what the target takes at once, and no less than what has one fingerprint. */
  get #granule(): number {
    return Math.max(this.target.minimumBlock, fingerprintUnit);
  }

  /**
   * Sends the blocks of a granule. If the target takes no less than several blocks at once, the blocks between them are
   * those that it holds: they are not pending, so they are the device's at the freeze, or they are not in use.
   */
  async #sendGranule(slot: Slot, granule: SpooledGranule): Promise<void> {
    try {
      const { offset, length, whole } = granule;
      const runs = [...this.#runsOf(granule)];
      // All of it has been freed since it was read.
      if (runs.length === 0) return;
      const { minimumBlock, abilities } = this.target;
      const data = slot.buffer.subarray(0, length);
      const completed = !whole && minimumBlock > this.#block;
      if (completed) (await this.#readBack.read(offset, length)).copy(data);
      this.#spool.copyTo(granule, data);
      // What a vault returns is authenticated; what others return is no proof of what they should hold.
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

  /** Ranges of the granule, from its start, that hold blocks to be sent, in what the target takes at once. */
  *#runsOf({ offset, length, blocks }: SpooledGranule): Generator<Extent> {
    const { send } = this.#dependencies;
    const wanted = blocks.filter((block) => send.has(Math.floor(block / send.unit)));
    const extents = wanted.map((block) => ({ offset: block - offset, length: this.#block }));
    yield* merged(alignedOut(extents, Math.max(1, this.target.minimumBlock), length));
  }

  /** The new fingerprints of the granule's units that have blocks in the spool: known, or unknown from now on. */
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

  /** Lets the target free the space of these blocks, where it can; the bytes that it was told. */
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

  /** Reads the places from the target and holds them to their hashes. */
  compare(places: readonly Witness[]): Promise<CompareResult> {
    return this.#readBack.compare(places, this.#dependencies.depth);
  }

  /** Runs `work`, then waits for all that it began, and throws the first failure of either. */
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

  /** Waits while the job is paused, and for the rest of the machine; throws where it is to stop or something has failed. */
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
    // In slices, so that a cancel does not wait for a slow rate.
    for (let left = wait; left > 0 && !control.stopped; left -= 100) await sleep(Math.min(left, 100));
  }

  /** Reads this thread's share of the blocks that are set in `send`, and keeps them. */
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
    // The pending map still has these units; their fingerprints count only when that has shrunk.
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
   * The stretches of the piece that the target needs: blocks set in `send`, and all of the units that `whole`
   * names; joined where they are of one kind.
   */
  *#runs(offset: number, length: number, whole: (unit: number) => boolean): Generator<Run> {
    // The usual case of a full backup, in which nothing has to be looked up for each unit.
    const all = allMarked(this.#dependencies.send, offset, length);
    let run: Run | undefined;
    // A target may take no less than several units at once.
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

  /** The blocks of `[start, end)` that are set in `send`, rounded to what the target can write. */
  #wanted(start: number, end: number): Iterable<Extent> {
    const { send } = this.#dependencies;
    const block = this.target.minimumBlock;
    // Bits may stand for more than a piece.
    const extents = clipped(send.extents(start, end), start, end);
    return block <= send.unit ? extents : merged(alignedOut(extents, block, end));
  }

  /** Keeps whole blocks in the spool. Those that have no room are sent at once, if they may be. */
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
      // No rate limit here: it would make the freeze longer.
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

  /** Lets a read from the target go on while the next ones are asked for; waits where there are enough. */
  async #ahead(read: Promise<void>): Promise<void> {
    const settled: Promise<void> = read
      .catch((error: unknown) => this.#writer.fail(error))
      .finally(() => this.#reads.delete(settled));
    this.#reads.add(settled);
    if (this.#reads.size >= this.#dependencies.depth) await Promise.race(this.#reads);
  }
}

const unknownPrint = Buffer.alloc(fingerprintSize);

/** Bytes of a piece, from its start, that go to the target. */
interface Run {
  readonly from: number;
  length: number;
  readonly zero: boolean;
}
