/**
 * The joint work of the copying threads of one device, one map of blocks after another. A unit counts as done only
 * after a flush that followed its write (invariant 3). If the connection is lost, all writes since the last flush are
 * sent again, from the source.
 */
import { Bitmap } from '../../base/bitmap.ts';
import { GiB, MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { type Extent, totalLength } from '../../base/extents.ts';
import type { ImageRoot, SealedBytes } from '../../block/target.ts';
import type { MountState } from '../../filesystems/used-map.ts';
import { inUnit, roundedOut, wholeUnits } from '../../tracking/bitmap-units.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import type { ReadErrorRecord } from '../../api/job-status.ts';
import type { Counters } from './control.ts';
import { ImpactWatch } from './impact-watch.ts';
import type { MapResult, PassMode, RunResult, TargetFacts } from './messages.ts';
import type { Samples } from './samples.ts';
import { ReadingSpeed } from './reading-speed.ts';
import { SegmentCursor } from './segments.ts';
import type { Expectation } from './same-image.ts';
import { CopyThreads, type PoolSetup, type SharedMemory } from './threads.ts';
import { witnessesPerFlush } from './witnesses.ts';

/** The target time between two flushes, and the limits of a segment in bytes. */
const segmentSeconds = 30;
const firstSegment = 4 * GiB;
const smallestSegment = 64 * MiB;
const largestSegment = 64 * GiB;

/** Bytes that a disk reads within milliseconds, or within tens of milliseconds if it is slow. */
const littleToRead = 8 * MiB;

/** A reading of the allocation map. */
export interface ReadMap extends MapResult {
  readonly used: Bitmap;
}

export class CopyPool {
  readonly #setup: PoolSetup;
  readonly #threads: CopyThreads;
  readonly #memory: SharedMemory;
  /** How fast the threads read. */
  readonly speed: ReadingSpeed;
  #redone = 0;
  /** The values that the counters will have when all blocks of the current set are sent. */
  #goal: { readonly done: number; readonly read: number } | undefined;
  #resent: Bitmap | undefined;
  /** The allocation map of the readings that build on each other, and the number of these readings. */
  #keptMap: Bitmap | undefined;
  #readings = 0;
  /** Bytes of the blocks that the spools held after the last run that filled them. */
  #kept = 0;
  /** Blocks that the spools have to hold since the freeze. */
  #owed: Bitmap | undefined;
  /** Holds passes back. Undefined if they are not held back, or no longer. */
  #watch: ImpactWatch | undefined;
  readErrors: ReadErrorRecord[] = [];

  constructor(setup: PoolSetup) {
    this.#setup = setup;
    this.#threads = new CopyThreads(setup);
    this.#memory = this.#threads.memory;
    this.speed = new ReadingSpeed(this.#threads);
    const { impact, writes } = setup;
    if (impact !== undefined)
      this.#watch = new ImpactWatch(impact, this.#memory.control, writes ?? (() => undefined));
  }

  get targetName(): string {
    return this.#threads.targetName;
  }

  get facts(): TargetFacts {
    return this.#threads.facts;
  }

  get samples(): Samples {
    return this.#memory.samples;
  }

  /** Returns how often the connection was lost and came back. */
  get reconnects(): number {
    return this.#threads.reconnects;
  }

  /** The reason why fewer connections than wanted are in use. Undefined if none was refused. */
  get refused(): string | undefined {
    return this.#threads.refused;
  }

  /** True if the fingerprints of the sent data are kept. */
  get fingerprinted(): boolean {
    return this.#setup.fingerprintPath !== undefined;
  }

  /** Fingerprint units that were sent and confirmed before the last reconnect. Undefined if there was none. */
  get doubtful(): Bitmap | undefined {
    return this.#threads.image.doubtful;
  }

  /** Sets the content that the target must have after a reconnect, in addition to this job's own writes. */
  expect(expectation: Expectation): void {
    this.#threads.image.expectation = expectation;
  }

  /** True if a connection that is lost from now on cannot be repaired from the source as it is. */
  get hasUnconfirmed(): boolean {
    return this.#threads.hasUnconfirmed;
  }

  /** Connects, checks the target, and adds threads if it supports several connections. */
  async open(): Promise<TargetFacts> {
    const facts = await this.#threads.open();
    this.#watch?.start();
    return facts;
  }

  /** From the next run on, no pass is held back for other work on the machine. */
  hurry(): void {
    this.#watch?.stop();
    this.#watch = undefined;
  }

  /** Returns the counters over all threads. `done` does not include work that was repeated. */
  counters(): Counters {
    const total = this.#memory.control.total();
    return { ...total, done: Math.max(0, total.done - this.#redone) };
  }

  /** Bytes of the current set that are still to be sent, and to be read. Undefined if nothing is being sent. */
  get left(): { readonly toSend: number; readonly toRead: number } | undefined {
    if (this.#goal === undefined) return undefined;
    const { done, read } = this.counters();
    return { toSend: Math.max(0, this.#goal.done - done), toRead: Math.max(0, this.#goal.read - read) };
  }

  /** `set`: the blocks that `work` sends. */
  async #sending<Result>(set: Bitmap, work: () => Promise<Result>): Promise<Result> {
    const { done, read } = this.counters();
    this.#goal = { done: done + set.bytes(), read: read + totalLength(wholeUnits(set)) };
    try {
      return await work();
    } finally {
      this.#goal = undefined;
    }
  }

  /** Reads the allocation map as a whole. */
  async readMap(state: MountState): Promise<ReadMap> {
    const used = new Bitmap(this.#setup.deviceSize, this.#setup.unit);
    const args = { state, used: used.buffer, kept: undefined };
    return { used, ...(await this.#threads.first.call('map', args)) };
  }

  /**
   * Reads the allocation map, and keeps the metadata that it is computed from. The next call reads only the metadata
   * that may have changed. `written`: the blocks written since the previous call began; undefined if they are not
   * known. The next call changes the map that this call returns.
   */
  async readKeptMap(state: MountState, written: Bitmap | undefined): Promise<ReadMap> {
    const used = (this.#keptMap ??= new Bitmap(this.#setup.deviceSize, this.#setup.unit));
    const result = await this.#threads.first.call('map', {
      state,
      used: used.buffer,
      kept: {
        reading: ++this.#readings,
        written: written && { unit: written.unit, bits: written.buffer },
      },
    });
    return { used, ...result };
  }

  /** Makes all threads read from another path with the same content. To be called while no work is under way. */
  async useSource(path: string): Promise<void> {
    await this.#threads.all((thread) => thread.call('useSource', { path }));
  }

  /** Learns which units of the set already read as zeros at the target, if the target supports that. */
  async readZeroMap(set: Bitmap): Promise<void> {
    await this.#threads.untilFlushed(async () => {
      if (this.facts.abilities.zeroMap) await this.#threads.first.call('zeroMap', { used: set.buffer });
    });
  }

  /**
   * Copies the blocks that are set, in segments that end with a flush. When it returns, the target has confirmed all of
   * them, by a flush if the target supports flush.
   */
  async copy(set: Bitmap): Promise<void> {
    this.#memory.send.copy(set);
    this.#threads.image.witnesses.forget(set);
    await this.#sending(set, () => this.#segments('copy', set));
  }

  /**
   * Returns the blocks that were read and sent again after lost connections since the last call. Undefined if there are
   * none.
   */
  takeResent(): Bitmap | undefined {
    const resent = this.#resent;
    this.#resent = undefined;
    return resent;
  }

  /** Reads the units of the set, and returns the fingerprint units that differ. Sends nothing. */
  async compare(set: Bitmap): Promise<Bitmap> {
    this.#memory.found.fill(false);
    await this.#segments('compare', set);
    return this.#memory.found.clone();
  }

  /** Blocks in memory that match the device, as far as is known. */
  get stashed(): Bitmap {
    return this.#memory.stashed;
  }

  /** The device was written at these blocks, so their copies in memory are outdated. */
  forgetStashed(dirty: Bitmap): void {
    this.stashed.andNot(inUnit(dirty, this.stashed.unit));
  }

  /** Bytes of memory for blocks that wait for the thaw, which no device of the job uses yet. */
  get roomLeft(): number {
    return this.#setup.room.free;
  }

  /** Bytes of memory whose blocks were written since. The next run forgets these blocks and uses the memory again. */
  get roomToReuse(): number {
    return Math.max(0, this.#kept - this.stashed.bytes());
  }

  /**
   * Reads the blocks of the set that are not in memory yet, before the freeze. The freeze then has to read only blocks
   * that were written since. The target is not used. Returns false, and keeps nothing, if memory has no room.
   */
  async stash(set: Bitmap): Promise<boolean> {
    try {
      await this.#keep('stash', set, { mayOverflow: false });
      return true;
    } catch (error) {
      if (!(error instanceof AgentError && error.code === 'FREEZE_TOO_LONG')) throw error;
      await this.dropSpool();
      return false;
    }
  }

  /**
   * The pass inside the freeze. `set` names all blocks that the target lacks. Those that are not in memory yet are
   * read. It does not flush, and it fails if a connection is lost. `overflow`: bytes that had no room and were sent
   * already. That happens only if `mayOverflow` allows it; otherwise FREEZE_TOO_LONG is thrown.
   */
  async freeze(set: Bitmap, options: { readonly mayOverflow: boolean }): Promise<{ overflow: number }> {
    this.#owed = set.clone();
    return this.#keep('frozen', set, options);
  }

  /**
   * Does the same without a tracker: keeps the blocks of `send`, and all units of `compare` that differ from their
   * fingerprints. `kept`: all blocks that `sendSpool` has to send.
   */
  async freezeComparing(
    send: Bitmap,
    compare: Bitmap,
    { mayOverflow }: { readonly mayOverflow: boolean },
  ): Promise<{ kept: Bitmap; overflow: number }> {
    // The rounds before the freeze may have kept blocks before the tracker was lost.
    await this.dropSpool();
    this.#threads.keepAll = true;
    this.#memory.found.fill(false);
    this.#memory.send.copy(send);
    const set = send.clone();
    set.or(compare);
    const { overflow } = await this.#segments(
      'frozen-compare',
      this.#granular(set),
      mayOverflow && this.canOverflow,
    );
    const kept = send.clone();
    for (const { offset, length } of this.#memory.found.extents()) kept.mark(offset, length);
    // If a block is larger than a fingerprint unit, only its units that differ are kept.
    this.#owed = (kept.unit > fingerprintUnit ? send : kept).clone();
    // `sendSpool` overwrites these blocks from now on. Those that overflowed are overwritten already.
    this.#threads.image.witnesses.forget(kept);
    return { kept, overflow };
  }

  /** Returns the set rounded out to the target's smallest block. */
  #granular(set: Bitmap): Bitmap {
    return roundedOut(set, this.facts.minimumBlock);
  }

  async #keep(
    mode: 'stash' | 'frozen',
    set: Bitmap,
    { mayOverflow }: { readonly mayOverflow: boolean },
  ): Promise<{ overflow: number }> {
    // A target that cannot be read cannot complete a granule.
    const wanted = (this.facts.abilities.read ? set : this.#granular(set)).clone();
    wanted.andNot(this.stashed);
    const chosen = this.#withNeighbours(wanted);
    // Leaves out neighbours that are in memory already: a block that is there twice makes its granule look incomplete.
    chosen.andNot(this.stashed);
    this.#memory.send.copy(chosen);
    this.#threads.keepAll = true;
    const results = await this.#runAll(mode, 0, mayOverflow && this.canOverflow);
    this.stashed.or(chosen);
    this.#kept = this.stashed.bytes();
    const overflow = results.reduce((sum, result) => sum + result.overflow, 0);
    if (overflow > 0) this.#threads.image.witnesses.forget(chosen);
    return { overflow };
  }

  /**
   * True if blocks may be sent within a freeze. A vault would write to files then. Another target must take single
   * blocks, without their neighbours.
   */
  get canOverflow(): boolean {
    const { abilities, minimumBlock } = this.facts;
    return abilities.seals !== true && minimumBlock <= Math.min(this.#setup.unit, fingerprintUnit);
  }

  /**
   * Returns the set rounded out to whole target blocks and fingerprint units, if that is little to read. Then nothing
   * has to be completed after the thaw, and all fingerprints are known.
   */
  #withNeighbours(set: Bitmap): Bitmap {
    if (set.bytes() > littleToRead) return set;
    const whole = roundedOut(set, Math.max(this.facts.minimumBlock, fingerprintUnit));
    const bytes = whole.bytes();
    return bytes <= littleToRead && bytes <= this.roomLeft / 4 ? whole : set;
  }

  /**
   * Lets the target free the space of these blocks. They must be pending, since their content is not known afterwards.
   * Flushed when it returns. Returns the bytes that were named to the target.
   */
  async trim(freed: Bitmap): Promise<number> {
    const set = freed.clone();
    this.#threads.image.witnesses.forget(set);
    return this.#threads.untilFlushed(async (again) => {
      if (again && this.hasUnconfirmed) throw this.#threads.lostUnconfirmed();
      return (await this.#threads.first.call('trim', { freed: set.buffer })).bytes;
    });
  }

  /**
   * Reads the set from the target and compares it with the fingerprints. Returns how many places differ, the first of
   * them, and all of them in fingerprint units.
   */
  async verify(set: Bitmap): Promise<{ mismatches: number; firstMismatch: number; found: Bitmap }> {
    this.#memory.found.fill(false);
    const { mismatches, firstMismatch } = await this.#segments('verify', set);
    return { mismatches, firstMismatch, found: this.#memory.found.clone() };
  }

  async #segments(
    mode: PassMode,
    set: Bitmap,
    mayOverflow = false,
  ): Promise<{ overflow: number; mismatches: number; firstMismatch: number }> {
    const cursor = new SegmentCursor(set);
    const sum = { overflow: 0, mismatches: 0, firstMismatch: -1 };
    let size = firstSegment;
    for (;;) {
      const segment = cursor.next(this.#memory.items, size);
      if (segment.count === 0) return sum;
      const start = performance.now();
      const { reconnects } = this;
      const results = await this.#segment(mode, segment.count, mayOverflow);
      for (const { overflow, mismatches } of results) {
        sum.overflow += overflow;
        if (mismatches === undefined) continue;
        if (sum.firstMismatch < 0 || mismatches.first < sum.firstMismatch)
          sum.firstMismatch = mismatches.first;
        sum.mismatches += mismatches.count;
      }
      // The places that a verification has read stay valid as long as the server is the same.
      if (mode === 'verify' && this.#setup.access === 'read' && sum.mismatches === 0)
        this.#threads.image.verified(this.#someItems(segment.count));
      // If connections do not last, a small segment loses little with the next one.
      const seconds = reconnects < this.reconnects ? Infinity : (performance.now() - start) / 1000;
      size = Math.min(largestSegment, Math.max(smallestSegment, (segment.bytes / seconds) * segmentSeconds));
    }
  }

  /** Returns up to `witnessesPerFlush` random items of the segment. */
  #someItems(count: number): Extent[] {
    const { items } = this.#memory;
    const step = Math.max(1, count / witnessesPerFlush);
    const chosen: Extent[] = [];
    for (let at = Math.random() * step; at < count; at += step) {
      const item = Math.floor(at) * 2;
      chosen.push({ offset: items[item] ?? 0, length: items[item + 1] ?? 0 });
    }
    return chosen;
  }

  async #segment(mode: PassMode, count: number, mayOverflow: boolean): Promise<RunResult[]> {
    if (mode !== 'copy' && mode !== 'verify') return this.#runAll(mode, count, mayOverflow);
    const items = this.#memory.items.slice(0, count * 2);
    return this.#threads.untilFlushed(async (again) => {
      if (again && mode === 'verify' && this.hasUnconfirmed) throw this.#threads.lostUnconfirmed();
      if (again && mode === 'copy') {
        await this.#resend();
        // Parts of it are sent once more now, and may have changed in between.
        await this.#threads.takeWitnesses();
      }
      this.#memory.items.set(items);
      return this.#runAll(mode, count);
    });
  }

  /** Copies the blocks that no flush has confirmed, from the source as it is now. */
  async #resend(): Promise<void> {
    this.#redone += this.#memory.unconfirmed.bytes();
    this.#resent ??= new Bitmap(this.#setup.deviceSize, this.#setup.unit);
    this.#resent.or(this.#memory.unconfirmed);
    const send = this.#memory.send.clone();
    this.#memory.send.copy(this.#memory.unconfirmed);
    try {
      const cursor = new SegmentCursor(this.#memory.unconfirmed.clone());
      for (;;) {
        const { count } = cursor.next(this.#memory.items, Infinity);
        if (count === 0) return;
        await this.#runAll('copy', count);
      }
    } finally {
      this.#memory.send.copy(send);
    }
  }

  async #runAll(mode: PassMode, count: number, mayOverflow = false): Promise<RunResult[]> {
    this.#memory.control.rewind();
    const threads = this.#threads.count;
    const watch = mode === 'copy' || mode === 'compare' ? this.#watch : undefined;
    const considerate = watch !== undefined;
    if (watch !== undefined) watch.copying = true;
    const results = await this.#threads
      .all((thread, share) => thread.call('run', { mode, count, threads, share, mayOverflow, considerate }))
      .finally(() => {
        if (watch !== undefined) watch.copying = false;
      });
    for (const { readErrors } of results) this.readErrors.push(...readErrors);
    return results;
  }

  /**
   * Sends the blocks of the set that are in memory, and flushes. `resendable`: nothing else was unconfirmed at the
   * freeze, so a lost connection can be repaired from memory. Returns the units whose fingerprint is known now.
   */
  async sendSpool(set: Bitmap, resendable: boolean): Promise<Bitmap> {
    await this.#refuseGaps();
    this.#memory.send.copy(set);
    this.#memory.found.fill(false);
    const lacking = await this.#threads.all((thread) => thread.call('spoolLacks', undefined));
    // A vault reads back only data in packs that are closed.
    if (lacking.some((granules) => granules > 0)) await this.seal();
    const granules = this.#granular(set);
    this.#threads.image.witnesses.forget(granules);
    await this.#sending(granules, () =>
      this.#threads.untilFlushed(async (again) => {
        if (again && !resendable) throw this.#threads.lostUnconfirmed();
        await this.#threads.all((thread) => thread.call('sendSpool', undefined));
      }),
    );
    const known = this.#memory.found.clone();
    await this.dropSpool();
    return known;
  }

  /** Throws INTERNAL if the threads together do not hold all blocks that the freeze had to read. */
  async #refuseGaps(): Promise<void> {
    if (this.#owed === undefined) return;
    this.#memory.send.copy(this.#owed);
    const held = await this.#threads.all((thread) => thread.call('spoolHolds', undefined));
    const bytes = held.reduce((sum, each) => sum + each, 0);
    const owed = this.#owed.bytes();
    if (bytes >= owed) return;
    throw new AgentError(
      'INTERNAL',
      `the copying threads read ${bytes} bytes of ${this.#setup.sourcePath} in the freeze, and ${owed} had to be read`,
      { hint: 'the image is not complete; start the backup again, and report this' },
    );
  }

  /** Drops all blocks that are in memory. */
  async dropSpool(): Promise<void> {
    this.#owed = undefined;
    this.#kept = 0;
    this.stashed.fill(false);
    await this.#threads.all((thread) => thread.call('dropSpool', undefined));
    await this.#threads.keepNone();
  }

  /**
   * Makes the image start as zeros and not as an earlier one, if the target builds on earlier ones: see
   * CommittingTarget.
   */
  async discardBase(): Promise<void> {
    await this.#threads.all((thread) => thread.call('discardBase', undefined));
  }

  /** Makes the data in a committing target durable. Returns undefined if the target does not commit. */
  async seal(): Promise<SealedBytes | undefined> {
    if (this.facts.abilities.seals !== true) return undefined;
    const sum = { fresh: 0, stored: 0 };
    for (const { fresh, stored } of await this.#threads.all((thread) => thread.call('seal', undefined))) {
      sum.fresh += fresh;
      sum.stored += stored;
    }
    return sum;
  }

  /**
   * Makes the map of the image in a committing target, after `seal`. For the bitmaps, see `CommittingTarget.buildMap`.
   */
  async buildMap(touched: Bitmap, used: Bitmap): Promise<ImageRoot> {
    return this.#threads.first.call('buildMap', {
      touched: touched.buffer,
      used: used.clone().buffer,
    });
  }

  /** Removes samples in units that the target lacks in part, since they cannot be compared. */
  forgetSamples(pending: Bitmap): void {
    for (let sample = 0; sample < this.samples.count; sample++) {
      const start = this.samples.get(sample).unit * fingerprintUnit;
      if (pending.extents(start, start + fingerprintUnit).next().done !== true) this.samples.forget(sample);
    }
  }

  /** Reads the samples back, even if the connection is lost in the meantime. Throws TARGET_MISMATCH. */
  async checkSamples(): Promise<void> {
    await this.#threads.untilFlushed(async (again) => {
      if (again && this.hasUnconfirmed) throw this.#threads.lostUnconfirmed();
      await this.#threads.first.call('checkSamples', undefined);
    });
  }

  set paused(value: boolean) {
    this.#memory.control.paused = value;
  }

  /** When the signal aborts, ends every wait of a thread, even for a connection that does not answer. */
  stopWith(signal: AbortSignal): void {
    signal.throwIfAborted();
    signal.addEventListener('abort', () => this.stop(), { once: true });
  }

  /** Soon ends all work under way with CANCELLED. */
  stop(): void {
    this.#threads.stop();
  }

  close(): Promise<void> {
    this.hurry();
    return this.#threads.close();
  }
}
