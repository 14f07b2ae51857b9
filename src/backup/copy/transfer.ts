/**
 * The loop of a copying thread: takes items until there are none, reads them chunk by chunk, and keeps the
 * target busy. Reads block the thread (design.md, Speed), so this runs in worker threads only.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { type Extent, alignedIn, alignedOut, clipped, merged, pieces } from '../../base/extents.ts';
import { isReadError } from '../../block/read-errors.ts';
import type { Target } from '../../block/target.ts';
import { allMarked, markShared } from './atomic-bitmap.ts';
import { ChunkReader, type ChunkParts } from './chunk.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import { type PassMode, type RunResult, isFrozen } from './messages.ts';
import { Outgoing, requestSize, type Slot } from './outgoing.ts';
import { ReadBack } from './read-back.ts';
import { Spool, spoolFull } from './spool.ts';
import type { Bitmap } from '../../base/bitmap.ts';

/** Bytes of one trim: between two a job can be cancelled. */
const trimSize = 1024 * MiB;

export interface TransferParts extends ChunkParts {
  /** Pairs of offset (a multiple of the fingerprint unit) and length. */
  readonly items: Float64Array;
  /** See ThreadSetup in messages.ts for the bitmaps. */
  readonly send: Bitmap;
  readonly unconfirmed: Bitmap;
  readonly found: Bitmap;
  readonly targetZero: Bitmap;
  readonly rate: number | undefined;
  readonly spoolBytes: number;
  /** Requests under way at once. */
  readonly depth: number;
}

export class Transfer {
  readonly #parts: TransferParts;
  readonly #outgoing: Outgoing;
  readonly #reader: ChunkReader;
  readonly #spool: Spool;
  readonly #readBack: ReadBack;
  readonly #reads = new Set<Promise<void>>();
  #overflow = 0;

  constructor(target: Target, parts: TransferParts) {
    this.#parts = parts;
    this.#outgoing = new Outgoing(target, parts);
    this.#reader = new ChunkReader(parts);
    this.#spool = new Spool(parts.control, parts.spoolBytes);
    this.#readBack = new ReadBack(() => this.target, parts);
  }

  get target(): Target {
    return this.#outgoing.target;
  }

  useTarget(target: Target): void {
    this.#outgoing.useTarget(target);
  }

  /** Works through the segment's items together with the other threads. Throws the first failure. */
  async run(mode: PassMode, count: number): Promise<RunResult> {
    const { control, items } = this.#parts;
    this.#reader.readErrors = [];
    this.#overflow = 0;
    this.#readBack.takeMismatches();
    await this.#session(async () => {
      for (let item = control.takeItem(); item < count; item = control.takeItem()) {
        const offset = items[item * 2] ?? 0;
        const end = offset + (items[item * 2 + 1] ?? 0);
        for (let at = offset; at < end; at += requestSize) {
          await this.#gate(mode);
          const length = Math.min(requestSize, end - at);
          if (mode === 'verify') await this.#ahead(this.#readBack.verify(at, length));
          else await this.#chunk(mode, at, length);
        }
      }
      this.#outgoing.sendZeroes();
      await Promise.all(this.#reads);
    });
    return {
      readErrors: this.#reader.readErrors,
      overflow: this.#overflow,
      mismatches: this.#readBack.takeMismatches(),
    };
  }

  /** Reads and hashes `count` items from `first` on, sending nothing. */
  async measure(first: number, count: number): Promise<{ bytes: number; ms: number }> {
    const { items, source, hasher } = this.#parts;
    const slot = await this.#outgoing.slot();
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
    this.#outgoing.release(slot);
    return { bytes: done, ms: performance.now() - start };
  }

  /** Sends what frozen passes kept; it stays until `dropSpool`, since a lost connection needs it again. */
  async sendSpool(): Promise<void> {
    await this.#session(async () => {
      for (const { offset, length, data } of this.#spool.entries) {
        await this.#gate('copy');
        await this.#pace(data?.length ?? 0);
        if (data === undefined) await this.#zeroes(offset, length);
        else await this.#outgoing.owned(data, offset);
      }
      this.#outgoing.sendZeroes();
      for (const { unit, print } of this.#spool.prints) this.#parts.fingerprints?.write(unit, print);
    });
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
  }

  /** Reads the sampled units back. Throws TARGET_MISMATCH. */
  checkSamples(): Promise<{ bytes: number }> {
    return this.#readBack.checkSamples();
  }

  /** Runs `work`, then waits for all that it began, and throws the first failure of either. */
  async #session(work: () => Promise<void>): Promise<void> {
    this.#outgoing.begin();
    try {
      await work();
    } catch (error) {
      this.#outgoing.fail(error);
    }
    await this.#outgoing.settled();
    this.#outgoing.throwIfFailed();
  }

  /** Waits while the job is paused; throws where it is to stop or something has failed. */
  async #gate(mode: PassMode): Promise<void> {
    const { control } = this.#parts;
    // A pause must not lengthen a freeze.
    while (control.paused && !control.stopped && !isFrozen(mode)) await sleep(20);
    if (control.stopped) throw new AgentError('CANCELLED', 'Cancelled');
    this.#outgoing.throwIfFailed();
  }

  async #pace(bytes: number): Promise<void> {
    const { control, rate } = this.#parts;
    if (rate === undefined || bytes === 0) return;
    const wait = control.book(bytes, rate);
    // In slices, so that a cancel does not wait for a slow rate.
    for (let left = wait; left > 0 && !control.stopped; left -= 100) await sleep(Math.min(left, 100));
  }

  async #chunk(mode: PassMode, offset: number, length: number): Promise<void> {
    const slot = await this.#outgoing.slot();
    try {
      await this.#reader.read(offset, slot.buffer.subarray(0, length));
      if (mode === 'compare') this.#compare(offset, length);
      else if (mode === 'copy') await this.#copy(slot, offset, length);
      else this.#freeze(slot, offset, length, mode === 'frozen-compare');
    } finally {
      this.#outgoing.release(slot);
    }
  }

  #compare(offset: number, length: number): void {
    const { control, thread, found } = this.#parts;
    this.#reader.loadFingerprints();
    for (let unit = 0; unit < this.#reader.units; unit++) {
      const at = unit * fingerprintUnit;
      const bytes = Math.min(fingerprintUnit, length - at);
      const differs = this.#reader.differs(unit);
      if (differs) markShared(found, offset + at, bytes);
      control.add(thread, differs ? 'different' : 'same', bytes);
    }
  }

  async #copy(slot: Slot, offset: number, length: number): Promise<void> {
    // The pending map still has these units; their fingerprints count only when that has shrunk.
    this.#reader.saveFingerprints();
    for (const { from, length: bytes, zero } of this.#runs(offset, length, () => false)) {
      if (!zero) await this.#pace(bytes);
      this.#send(slot, from, offset + from, bytes, zero);
    }
  }

  #freeze(slot: Slot, offset: number, length: number, compare: boolean): void {
    const { control, thread } = this.#parts;
    if (compare) this.#reader.loadFingerprints();
    for (const { from, length: bytes, zero } of this.#runs(
      offset,
      length,
      (unit) => compare && this.#reader.differs(unit),
    )) {
      control.add(thread, 'different', bytes);
      this.#keep(slot, from, offset + from, bytes, zero);
    }
    for (let unit = 0; unit < this.#reader.units; unit++) this.#spool.keepPrint(this.#reader.touched(unit));
  }

  /**
   * The stretches of the chunk that the target needs: blocks set in `send`, and all of the units that `whole`
   * names; joined where they are of one kind.
   */
  *#runs(offset: number, length: number, whole: (unit: number) => boolean): Generator<Run> {
    // The usual case of a full backup, in which nothing has to be looked up for each unit.
    const all = allMarked(this.#parts.send, offset, length);
    let run: Run | undefined;
    // A target may take no less than several units at once.
    const step = Math.max(1, this.target.minimumBlock / fingerprintUnit);
    for (let unit = 0; unit < this.#reader.units; unit += step) {
      const group = Array.from({ length: Math.min(step, this.#reader.units - unit) }, (_, i) => unit + i);
      const start = offset + unit * fingerprintUnit;
      const end = Math.min(start + step * fingerprintUnit, offset + length);
      const extents =
        all || group.some(whole) ? [{ offset: start, length: end - start }] : this.#wanted(start, end);
      let zero: boolean | undefined;
      for (const extent of extents) {
        zero ??= group.map((each) => this.#reader.touch(each)).every((isZero) => isZero);
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
    const { send } = this.#parts;
    const block = this.target.minimumBlock;
    // Bits may stand for more than a chunk.
    const extents = clipped(send.extents(start, end), start, end);
    return block <= send.unit ? extents : merged(alignedOut(extents, block, end));
  }

  #keep(slot: Slot, from: number, offset: number, length: number, zero: boolean): void {
    const { control, thread } = this.#parts;
    if (this.#spool.keep(offset, slot.buffer.subarray(from, from + length), zero)) {
      control.add(thread, 'spooled', length);
      return;
    }
    if (this.target.abilities.seals === true) throw spoolFull(this.target.name, this.#parts.spoolBytes);
    this.#overflow += length;
    // No rate limit here: it would make the freeze longer.
    this.#send(slot, from, offset, length, zero);
  }

  #send(slot: Slot, from: number, offset: number, length: number, zero: boolean): void {
    if (zero && this.#outgoing.areZero(offset, length)) return;
    if (zero && this.target.abilities.writeZeroes) {
      this.#outgoing.zeroes(offset, length);
      return;
    }
    this.#outgoing.data(slot, from, offset, length);
  }

  async #zeroes(offset: number, length: number): Promise<void> {
    if (this.#outgoing.areZero(offset, length)) return;
    if (this.target.abilities.writeZeroes) this.#outgoing.zeroes(offset, length);
    else
      for (let at = 0; at < length; at += requestSize)
        await this.#outgoing.owned(Buffer.alloc(Math.min(requestSize, length - at)), offset + at);
  }

  /** Lets a read from the target go on while the next ones are asked for; waits where there are enough. */
  async #ahead(read: Promise<void>): Promise<void> {
    const settled: Promise<void> = read
      .catch((error: unknown) => this.#outgoing.fail(error))
      .finally(() => this.#reads.delete(settled));
    this.#reads.add(settled);
    if (this.#reads.size >= this.#parts.depth) await Promise.race(this.#reads);
  }
}

/** Bytes of a chunk, from its start, that go to the target. */
interface Run {
  readonly from: number;
  length: number;
  readonly zero: boolean;
}
