/**
 * The copying threads of one device and its target, and what must hold whatever happens to them:
 * a unit counts as done only after a flush that followed its write (invariant 3). When the connection is lost,
 * everything written since the last flush is sent again, from the source.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Bitmap } from '../../base/bitmap.ts';
import { GiB, MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { errorKinds } from '../../base/error-codes.ts';
import type { SealedBytes } from '../../block/target.ts';
import type { MountState } from '../../filesystems/used-map.ts';
import type { ReadErrorRecord } from '../status.ts';
import { type TargetSpec, targetName } from '../targets.ts';
import { Control, type Counters } from './control.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import type { ImageRoot } from '../../vault/writing/vault-target.ts';
import { checkTarget } from './check-target.ts';
import type { MapResult, PassMode, RunResult, TargetFacts, ThreadSetup } from './messages.ts';
import { Patience } from './patience.ts';
import { Samples } from './samples.ts';
import { SegmentCursor, maximumItems, spread } from './segments.ts';
import { CopyThread } from './thread.ts';

export interface PoolSetup {
  /** Path the bytes are read from. */
  readonly sourcePath: string;
  /** Bytes. */
  readonly deviceSize: number;
  /** Where the partitions with writable mounts begin, in bytes; empty but for whole disks. */
  readonly livePartitions: readonly number[];
  readonly target: TargetSpec;
  /** Default write. */
  readonly access?: 'read' | 'write';
  readonly threads: number;
  /** Bytes per bit of the used map and of what is to be sent: a power of two. */
  readonly unit: number;
  /** Undefined where nothing will be compared. */
  readonly fingerprintPath: string | undefined;
  /** Of the fingerprints, 32 bytes. */
  readonly key: Uint8Array;
  /** Bytes per second. */
  readonly rate: number | undefined;
  readonly onReadError: 'fail' | 'zero';
  /** Bytes that all threads together may keep in memory while frozen. */
  readonly spoolBytes: number;
  readonly reconnectMs: number;
}

/** Requests under way at once per thread: enough to hide the way to the target and back, 8 MiB of buffers in all. */
const depthAlone = 8;
const depthShared = 4;

/** Aim of the time between two flushes, and the bounds of a segment in bytes. */
const segmentSeconds = 30;
const firstSegment = 4 * GiB;
const smallestSegment = 64 * MiB;
const largestSegment = 64 * GiB;

/** Bytes that have to have been read for their speed to tell. */
const tellingBytes = 8 * MiB;

export class CopyPool {
  readonly used: Bitmap;
  readonly samples = new Samples();
  readonly #setup: PoolSetup;
  readonly #control: Control;
  readonly #items = new Float64Array(new SharedArrayBuffer(maximumItems * 16));
  readonly #send: Bitmap;
  readonly #unconfirmed: Bitmap;
  readonly #found: Bitmap;
  readonly #targetZero: Bitmap;
  readonly #threads: CopyThread[] = [];
  readonly #patience: Patience;
  #facts: TargetFacts | undefined;
  #redone = 0;
  #measured: number | undefined;
  #resent: Bitmap | undefined;
  #reconnects = 0;
  readErrors: ReadErrorRecord[] = [];

  constructor(setup: PoolSetup) {
    this.#setup = setup;
    this.#control = new Control(setup.threads);
    this.#patience = new Patience(setup.reconnectMs);
    this.used = new Bitmap(setup.deviceSize, setup.unit);
    this.#send = new Bitmap(setup.deviceSize, setup.unit);
    this.#unconfirmed = new Bitmap(setup.deviceSize, setup.unit);
    this.#found = new Bitmap(setup.deviceSize, fingerprintUnit);
    this.#targetZero = new Bitmap(setup.deviceSize, fingerprintUnit);
  }

  get targetName(): string {
    return targetName(this.#setup.target);
  }

  get facts(): TargetFacts {
    if (this.#facts === undefined) throw new Error('the pool is not open');
    return this.#facts;
  }

  /** How often the connection was lost and came back. */
  get reconnects(): number {
    return this.#reconnects;
  }

  /** Counters over all threads; `done` without what had to be done again. */
  counters(): Counters {
    const total = this.#control.total();
    return { ...total, done: Math.max(0, total.done - this.#redone) };
  }

  /** Connects, checks the target, and adds threads where it takes several connections. */
  async open(): Promise<TargetFacts> {
    const first = this.#addThread();
    const facts = await first.call('open', { waitMs: 0 });
    this.#check(facts);
    this.#facts = facts;
    while (facts.abilities.multiConnection && this.#threads.length < this.#setup.threads)
      this.#check(await this.#addThread().call('open', { waitMs: 0 }));
    return facts;
  }

  #addThread(): CopyThread {
    const {
      sourcePath,
      target,
      deviceSize,
      livePartitions,
      threads,
      unit,
      fingerprintPath,
      key,
      rate,
      onReadError,
      spoolBytes,
    } = this.#setup;
    const setup: ThreadSetup = {
      access: this.#setup.access ?? 'write',
      thread: this.#threads.length,
      sourcePath,
      target,
      deviceSize,
      livePartitions,
      control: this.#control.buffer,
      threads,
      items: this.#items.buffer,
      unit,
      send: this.#send.words.buffer,
      unconfirmed: this.#unconfirmed.words.buffer,
      found: this.#found.words.buffer,
      targetZero: this.#targetZero.words.buffer,
      samples: this.samples.buffer,
      fingerprintPath,
      key,
      rate,
      onReadError,
      spoolBytes,
      depth: threads > 1 ? depthShared : depthAlone,
    };
    const thread = new CopyThread(setup);
    this.#threads.push(thread);
    return thread;
  }

  #check(facts: TargetFacts): void {
    checkTarget(this.#setup.access === 'read' ? { ...facts, readOnly: false } : facts, {
      target: this.targetName,
      source: this.#setup.sourcePath,
      size: this.#setup.deviceSize,
    });
  }

  /**
   * Reads the used map into `used`. A tentative map (`live`) that came out as "everything" says nothing, as the
   * metadata of a running filesystem may contradict itself: `used` then stays as it was.
   */
  async map(state: MountState): Promise<MapResult> {
    const used = new Bitmap(this.#setup.deviceSize, this.#setup.unit);
    const result = await this.#first.call('map', { state, used: used.words.buffer });
    if (state !== 'live' || !result.everything) this.used.copy(used);
    return result;
  }

  /** All threads read from another path from now on: one that holds as much, while nothing is under way. */
  async useSource(path: string): Promise<void> {
    await this.#all((thread) => thread.call('useSource', { path }));
  }

  /** Learns which used units already read as zeros at the target, where it can tell. */
  async readZeroMap(): Promise<void> {
    if (this.facts.abilities.zeroMap) await this.#first.call('zeroMap', { used: this.used.words.buffer });
  }

  /** Bytes per second at which all threads together read and hash; Infinity for an empty set. */
  async measureReading(): Promise<number> {
    return (this.#measured = await this.#measureReading());
  }

  /** The same as the passes have shown it, scattered as their blocks are; measured where they have read little. */
  async readingRate(): Promise<number> {
    const { read, readMs } = this.#control.total();
    if (read >= tellingBytes && readMs > 0) return (read / readMs) * 1000 * this.#threads.length;
    return this.#measured ?? this.measureReading();
  }

  async #measureReading(): Promise<number> {
    const places = spread(this.used, 8 * this.#threads.length);
    if (places.length === 0) return Infinity;
    this.#load(places.flatMap(({ offset, length }) => [offset, length]));
    const share = Math.ceil(places.length / this.#threads.length);
    const results = await Promise.all(
      this.#threads.map((thread, i) =>
        thread.call('measure', { first: i * share, count: Math.min(share, places.length - i * share) }),
      ),
    );
    return results.reduce((rate, { bytes, ms }) => rate + (bytes > 0 ? (bytes / ms) * 1000 : 0), 0);
  }

  /**
   * Copies the blocks that are set, in segments that end with a flush. When it returns, the target has confirmed
   * all of them, by a flush where it offers one.
   */
  async copy(set: Bitmap): Promise<void> {
    this.#send.copy(set);
    await this.#segments('copy', set);
  }

  /** What was read and sent again after lost connections since this was asked last; undefined where nothing was. */
  takeResent(): Bitmap | undefined {
    const resent = this.#resent;
    this.#resent = undefined;
    return resent;
  }

  /** Reads the units of the set; true bits of the result are the fingerprint units that differ. Sends nothing. */
  async compare(set: Bitmap): Promise<Bitmap> {
    this.#found.fill(false);
    await this.#segments('compare', set);
    return this.#found.clone();
  }

  /**
   * The pass inside the freeze: keeps the blocks of `send` in memory, and, where `compare` is given, all units of
   * that set that differ from their fingerprints. Neither flushes nor survives a lost connection: what was frozen
   * then is gone. `kept`: all that `sendSpool` will have sent, `overflow`: bytes that were sent already.
   */
  async freeze(send: Bitmap, compare: Bitmap | undefined): Promise<{ kept: Bitmap; overflow: number }> {
    this.#found.fill(false);
    this.#send.copy(send);
    const set = send.clone();
    if (compare !== undefined) set.or(compare);
    const { overflow } = await this.#segments(compare === undefined ? 'frozen' : 'frozen-compare', set);
    const kept = send.clone();
    for (const { offset, length } of this.#found.extents()) kept.mark(offset, length);
    return { kept, overflow };
  }

  /**
   * Lets the target free the space of these blocks, which must be pending: what it holds there afterwards is not
   * known. Flushed when it returns; the bytes that the target was told.
   */
  async trim(freed: Bitmap): Promise<number> {
    const set = freed.clone();
    return this.#untilFlushed(async (again) => {
      if (again && this.hasUnconfirmed) throw this.#lostUnconfirmed();
      return (await this.#first.call('trim', { freed: set.words.buffer })).bytes;
    });
  }

  /** Reads the set from the target and compares it with the fingerprints: places that differ, and the first. */
  async verify(set: Bitmap): Promise<{ mismatches: number; firstMismatch: number }> {
    return this.#segments('verify', set);
  }

  async #segments(
    mode: PassMode,
    set: Bitmap,
  ): Promise<{ overflow: number; mismatches: number; firstMismatch: number }> {
    const cursor = new SegmentCursor(set);
    const sum = { overflow: 0, mismatches: 0, firstMismatch: -1 };
    let size = firstSegment;
    for (;;) {
      const segment = cursor.next(this.#items, size);
      if (segment.count === 0) return sum;
      const start = performance.now();
      const results = await this.#segment(mode, segment.count);
      for (const { overflow, mismatches } of results) {
        sum.overflow += overflow;
        if (mismatches === undefined) continue;
        if (sum.firstMismatch < 0 || mismatches.first < sum.firstMismatch)
          sum.firstMismatch = mismatches.first;
        sum.mismatches += mismatches.count;
      }
      const seconds = (performance.now() - start) / 1000;
      size = Math.min(largestSegment, Math.max(smallestSegment, (segment.bytes / seconds) * segmentSeconds));
    }
  }

  async #segment(mode: PassMode, count: number): Promise<RunResult[]> {
    if (mode !== 'copy' && mode !== 'verify') return this.#runAll(mode, count);
    const items = this.#items.slice(0, count * 2);
    return this.#untilFlushed(async (again) => {
      if (again && mode === 'verify' && this.hasUnconfirmed) throw this.#lostUnconfirmed();
      if (again && mode === 'copy') await this.#resend();
      this.#items.set(items);
      return this.#runAll(mode, count);
    });
  }

  /**
   * Runs `work` and flushes; after a lost connection reconnects and does so again. Only then are the units
   * that were written confirmed.
   */
  async #untilFlushed<Result>(work: (again: boolean) => Promise<Result>): Promise<Result> {
    for (let again = false; ; again = true) {
      try {
        const result = await work(again);
        await this.#flush();
        return result;
      } catch (error) {
        // What a sealing target had gathered is gone with its connection.
        const final = this.#facts?.abilities.seals === true || this.#control.stopped;
        if (!isLost(error) || final) throw error;
        await this.#reconnect(error);
      }
    }
  }

  async #flush(): Promise<void> {
    const { flush, seals } = this.facts.abilities;
    if (!flush) return;
    if (seals === true) await this.#all((thread) => thread.call('flush', undefined));
    else await this.#first.call('flush', undefined);
    this.#unconfirmed.fill(false);
  }

  /** Copies what no flush has confirmed, from the source as it is now. */
  async #resend(): Promise<void> {
    this.#redone += this.#unconfirmed.bytes();
    this.#resent ??= new Bitmap(this.#setup.deviceSize, this.#setup.unit);
    this.#resent.or(this.#unconfirmed);
    const send = this.#send.clone();
    this.#send.copy(this.#unconfirmed);
    try {
      const cursor = new SegmentCursor(this.#unconfirmed.clone());
      for (;;) {
        const { count } = cursor.next(this.#items, Infinity);
        if (count === 0) return;
        await this.#runAll('copy', count);
      }
    } finally {
      this.#send.copy(send);
    }
  }

  async #runAll(mode: PassMode, count: number): Promise<RunResult[]> {
    this.#control.rewind();
    const results = await this.#all((thread) => thread.call('run', { mode, count }));
    for (const { readErrors } of results) this.readErrors.push(...readErrors);
    return results;
  }

  /** Waits for all threads, also where one fails; a failure that is not a lost connection comes first. */
  async #all<Result>(call: (thread: CopyThread) => Promise<Result>): Promise<Result[]> {
    const outcomes = await Promise.allSettled(
      this.#threads.map(async (thread) => {
        try {
          return await call(thread);
        } catch (error) {
          // What fails in one thread is no use finishing in the others.
          this.#control.takeNoMore();
          throw error;
        }
      }),
    );
    const failures = outcomes.flatMap((outcome) =>
      outcome.status === 'rejected' ? [outcome.reason as unknown] : [],
    );
    if (failures.length > 0) throw failures.find((failure) => !isLost(failure)) ?? failures[0];
    return outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
  }

  async #reconnect(cause: unknown): Promise<void> {
    this.#reconnects++;
    // The server may have been started anew over another image: nothing is known to be zero any more.
    this.#targetZero.fill(false);
    const patience = this.#patience.lost();
    if (patience === undefined) throw this.#gone(cause, cause);
    await this.#rest(patience.pauseMs);
    const { waitMs } = patience;
    let facts;
    try {
      facts = await this.#first.call('reopenTarget', { waitMs });
      for (const thread of this.#threads.slice(1)) this.#check(await thread.call('reopenTarget', { waitMs }));
    } catch (error) {
      if (!isLost(error)) throw error;
      throw this.#gone(cause, error);
    }
    this.#patience.connected();
    this.#check(facts);
    if (facts.size !== this.facts.size)
      throw new AgentError(
        'TARGET_MISMATCH',
        `${this.targetName} came back with ${facts.size} bytes instead of ${this.facts.size}`,
        { hint: 'another image is served now; start the backup again' },
      );
    this.#facts = facts;
  }

  #gone(lost: unknown, cause: unknown): AgentError {
    return new AgentError(
      'NBD_CONNECTION_LOST',
      `${this.targetName} was lost (${messageOf(lost)}) and did not come back to stay within ` +
        `${this.#setup.reconnectMs / 1000} s`,
      {
        hint: 'start the server again, then start the backup again; --reconnect sets how long is waited',
        cause,
      },
    );
  }

  /** In slices, so that a cancel does not wait for it. */
  async #rest(ms: number): Promise<void> {
    for (let left = ms; left > 0 && !this.#control.stopped; left -= 100) await sleep(Math.min(left, 100));
    if (this.#control.stopped) throw new AgentError('CANCELLED', 'Cancelled');
  }

  /** True where a connection lost from now on cannot be made good from the source as it is. */
  get hasUnconfirmed(): boolean {
    return !this.#unconfirmed.isEmpty();
  }

  /**
   * Sends what frozen passes kept in memory, and flushes. `resendable`: nothing else was unconfirmed at the
   * freeze, so that a lost connection can be made good from memory.
   */
  async sendSpool(resendable: boolean): Promise<void> {
    await this.#untilFlushed(async (again) => {
      if (again && !resendable) throw this.#lostUnconfirmed();
      await this.#all((thread) => thread.call('sendSpool', undefined));
    });
    await this.#all((thread) => thread.call('dropSpool', undefined));
  }

  /** For a vault: see ThreadCalls. */
  async forgetBase(): Promise<void> {
    await this.#all((thread) => thread.call('forgetBase', undefined));
  }

  /** Makes durable what a sealing target was given; bytes that were new to it, and what it stored for them. */
  async seal(): Promise<SealedBytes> {
    const sum = { fresh: 0, stored: 0 };
    if (this.facts.abilities.seals !== true) return sum;
    for (const { fresh, stored } of await this.#all((thread) => thread.call('seal', undefined))) {
      sum.fresh += fresh;
      sum.stored += stored;
    }
    return sum;
  }

  /** For a vault, after `seal`: see ThreadCalls. */
  async buildMap(touched: Bitmap): Promise<ImageRoot> {
    return this.#first.call('buildMap', {
      touched: touched.words.buffer,
      used: this.used.clone().words.buffer,
    });
  }

  /** Units of which the target lacks a part cannot be compared: they are no samples any more. */
  forgetSamples(pending: Bitmap): void {
    for (let sample = 0; sample < this.samples.count; sample++) {
      const start = this.samples.get(sample).unit * fingerprintUnit;
      if (pending.extents(start, start + fingerprintUnit).next().done !== true) this.samples.forget(sample);
    }
  }

  /** Reads the samples back, also over a lost connection. Throws TARGET_MISMATCH. */
  async checkSamples(): Promise<void> {
    await this.#untilFlushed(async (again) => {
      if (again && this.hasUnconfirmed) throw this.#lostUnconfirmed();
      await this.#first.call('checkSamples', undefined);
    });
  }

  #lostUnconfirmed(): AgentError {
    return new AgentError(
      'TARGET_WRITE_ERROR',
      `${this.targetName} was lost after the last look at ${this.#setup.sourcePath}, with blocks on the way that no ` +
        `flush had confirmed and that can no longer be read as they were`,
      { hint: 'start the backup again; a target that offers flush is resumed' },
    );
  }

  set paused(value: boolean) {
    this.#control.paused = value;
  }

  /** Ends all work under way with CANCELLED, soon. */
  stop(): void {
    this.#control.stopped = true;
    for (const thread of this.#threads) thread.abort();
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }

  get #first(): CopyThread {
    const thread = this.#threads[0];
    if (thread === undefined) throw new Error('the pool is not open');
    return thread;
  }

  #load(pairs: readonly number[]): void {
    this.#items.set(pairs);
  }
}

function isLost(error: unknown): boolean {
  return error instanceof AgentError && errorKinds[error.code].retry === true;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
