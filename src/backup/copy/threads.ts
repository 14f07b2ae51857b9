/**
 * The copying threads of one device and its target, what they share, and their connections: when one is lost they
 * connect again, and whatever no flush has confirmed is done again (invariant 3).
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { Bitmap } from '../../base/bitmap.ts';
import { AgentError } from '../../base/errors.ts';
import { type ErrorCode, errorKinds } from '../../base/error-codes.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import type { WriteCounters } from '../../devices/write-counters.ts';
import type { ExpectedFilesystems } from '../../devices/expected-filesystems.ts';
import type { ImpactLevel } from '../impact.ts';
import { type TargetSpec, targetName } from './targets.ts';
import { checkTarget } from './check-target.ts';
import { Control } from './control.ts';
import type { CompareResult, TargetFacts, ThreadSetup } from './messages.ts';
import { ReconnectBudget } from './reconnect-budget.ts';
import { SameImage } from './same-image.ts';
import { Samples } from './samples.ts';
import { maximumItems } from './segments.ts';
import type { SpoolRoom } from './spool-room.ts';
import { CopyThread } from './thread.ts';
import type { Witness } from './witnesses.ts';

export interface PoolSetup {
  /** Path the bytes are read from. */
  readonly sourcePath: string;
  /** Bytes. */
  readonly deviceSize: number;
  /** Where the partitions with writable mounts begin, in bytes; empty but for whole disks. */
  readonly livePartitions: readonly number[];
  /** Undefined where no map is read. */
  readonly expected?: ExpectedFilesystems;
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
  /** Memory for what is kept until the thaw, of all devices of the job. */
  readonly room: SpoolRoom;
  readonly reconnectMs: number;
  /** How passes are held back; undefined: not at all. */
  readonly impact?: ImpactLevel | undefined;
  /** See `openWriteCounters`. */
  readonly writes?: () => WriteCounters | undefined;
}

/** Requests under way at once per thread: enough to hide the way to the target and back, 8 MiB of buffers in all. */
const depthAlone = 8;
const depthShared = 4;

/** How long a server that is back may refuse a further connection that can be done without, in milliseconds. */
const refusalMs = 2000;

/**
 * Memory that all threads of a pool and their coordinator see; the bitmaps are described with ThreadSetup.
 *
 * The threads mark in `unconfirmed` and `found`. In `targetZero`, one thread marks before the copy begins, and all
 * threads clear units later. Clearing units leaves the summaries alone (base/bitmap.ts). Only the coordinator changes
 * `send` and `stashed`. The coordinator empties a bitmap of the threads only after all of them have answered their
 * calls, so it clears no summary bit whose unit is about to be marked. It may read these bitmaps at any time.
 */
export class SharedMemory {
  readonly control: Control;
  readonly items = new Float64Array(new SharedArrayBuffer(maximumItems * 16));
  readonly samples = new Samples();
  readonly send: Bitmap;
  readonly unconfirmed: Bitmap;
  readonly stashed: Bitmap;
  readonly found: Bitmap;
  readonly targetZero: Bitmap;

  constructor({ deviceSize, unit, threads }: PoolSetup) {
    this.control = new Control(threads);
    this.send = new Bitmap(deviceSize, unit);
    this.unconfirmed = new Bitmap(deviceSize, unit);
    this.stashed = new Bitmap(deviceSize, unit);
    this.found = new Bitmap(deviceSize, fingerprintUnit);
    this.targetZero = new Bitmap(deviceSize, fingerprintUnit);
  }
}

export class CopyThreads {
  readonly memory: SharedMemory;
  readonly image: SameImage;
  readonly #setup: PoolSetup;
  #threads: CopyThread[] = [];
  readonly #reconnectBudget: ReconnectBudget;
  #facts: TargetFacts | undefined;
  #reconnects = 0;
  #refused: string | undefined;
  /** Threads keep data in memory that no other has, so none of them can be given up. */
  keepAll = false;

  constructor(setup: PoolSetup) {
    this.#setup = setup;
    this.memory = new SharedMemory(setup);
    this.image = new SameImage(setup.deviceSize);
    this.#reconnectBudget = new ReconnectBudget(setup.reconnectMs);
  }

  get count(): number {
    return this.#threads.length;
  }

  get first(): CopyThread {
    const thread = this.#threads[0];
    if (thread === undefined) throw new Error('the pool is not open');
    return thread;
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

  /** Why fewer connections than wanted are in use; undefined if none was refused. */
  get refused(): string | undefined {
    return this.#refused;
  }

  /** Connects, checks the target, and adds threads where it takes several connections. */
  async open(): Promise<TargetFacts> {
    const { target, threads } = this.#setup;
    const opening = this.#addThread().call('open', { waitMs: 0 });
    // A vault takes any number of connections, so their threads start up meanwhile.
    if (target.kind === 'vault') this.#addThreads(threads);
    const facts = await opening;
    this.#check(facts);
    this.#facts = facts;
    if (facts.abilities.multiConnection) this.#addThreads(threads);
    await this.#openOthers((thread) => thread.call('open', { waitMs: 0 }));
    return facts;
  }

  /**
   * Opens further connections. A server may refuse them, by its limit of clients for one: the job then goes on with
   * fewer, unless a thread keeps what no other has.
   */
  async #openOthers(open: (thread: CopyThread) => Promise<TargetFacts>): Promise<void> {
    const [first, ...others] = this.#threads;
    if (first === undefined) return;
    const outcomes = await Promise.allSettled(others.map(async (thread) => this.#check(await open(thread))));
    const refused = new Map<CopyThread, unknown>();
    for (const [i, outcome] of outcomes.entries())
      if (outcome.status === 'rejected') refused.set(others[i]!, outcome.reason);
    const [failure] = [...refused.values()].filter((error) => this.keepAll || !isRefusal(error));
    if (failure !== undefined) throw failure as Error;
    for (const [thread, error] of refused) await this.#dismiss(thread, messageOf(error));
  }

  async #dismiss(thread: CopyThread, why: string): Promise<void> {
    this.#refused ??= why;
    this.#threads = this.#threads.filter((other) => other !== thread);
    await thread.close();
  }

  /** No thread keeps data that no other has any more. Everything that was written is flushed. */
  async keepNone(): Promise<void> {
    this.keepAll = false;
    await this.#dismissOthers(this.facts);
  }

  /** All but the first, if the server does not support several connections. */
  async #dismissOthers({ abilities }: TargetFacts): Promise<void> {
    if (abilities.multiConnection) return;
    for (const thread of this.#threads.slice(1))
      await this.#dismiss(thread, 'the server came back without support for several connections');
  }

  #addThreads(wanted: number): void {
    while (this.#threads.length < wanted) this.#addThread();
  }

  #addThread(): CopyThread {
    const {
      sourcePath,
      target,
      deviceSize,
      livePartitions,
      expected,
      threads,
      unit,
      fingerprintPath,
      key,
      rate,
      onReadError,
      room,
      impact,
    } = this.#setup;
    const { memory } = this;
    const setup: ThreadSetup = {
      access: this.#setup.access ?? 'write',
      thread: this.#threads.length,
      sourcePath,
      target,
      deviceSize,
      livePartitions,
      expected,
      control: memory.control.buffer,
      threads,
      items: memory.items.buffer,
      unit,
      send: memory.send.buffer,
      unconfirmed: memory.unconfirmed.buffer,
      stashed: memory.stashed.buffer,
      found: memory.found.buffer,
      targetZero: memory.targetZero.buffer,
      samples: memory.samples.buffer,
      fingerprintPath,
      key,
      rate,
      onReadError,
      room: room.setup,
      depth: threads > 1 ? depthShared : depthAlone,
      impact,
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
    const before = this.#facts;
    if (before !== undefined && (facts.size !== before.size || facts.minimumBlock > before.minimumBlock))
      throw new AgentError(
        'TARGET_MISMATCH',
        `${this.targetName} came back with ${facts.size} bytes in blocks of ${facts.minimumBlock} instead of ` +
          `${before.size} in blocks of ${before.minimumBlock}`,
        { hint: 'another image is served now; start the backup again' },
      );
  }

  /** Waits for all threads, also where one fails; a failure that is not a lost connection comes first. */
  async all<Result>(call: (thread: CopyThread, index: number) => Promise<Result>): Promise<Result[]> {
    const outcomes = await Promise.allSettled(
      this.#threads.map(async (thread, index) => {
        try {
          return await call(thread, index);
        } catch (error) {
          // What fails in one thread is no use finishing in the others.
          this.memory.control.takeNoMore();
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
    this.memory.targetZero.fill(false);
    const patience = this.#reconnectBudget.lost();
    if (patience === undefined) throw this.#gone(cause, cause);
    await this.#rest(patience.pauseMs);
    const { waitMs } = patience;
    let facts;
    try {
      facts = await this.first.call('reopenTarget', { waitMs });
      this.#check(facts);
      if (!this.keepAll) await this.#dismissOthers(facts);
      const othersWaitMs = Math.min(waitMs, this.keepAll ? waitMs : refusalMs);
      await this.#openOthers((thread) => thread.call('reopenTarget', { waitMs: othersWaitMs }));
    } catch (error) {
      if (!isLost(error)) throw error;
      throw this.#gone(cause, error);
    }
    this.#reconnectBudget.connected();
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
    for (let left = ms; left > 0 && !this.memory.control.stopped; left -= 100)
      await sleep(Math.min(left, 100));
    if (this.memory.control.stopped) throw new AgentError('CANCELLED', 'Cancelled');
  }

  /**
   * Runs `work` and flushes; after a lost connection reconnects, proves that the target still has the same image,
   * and does so again. Only then are the units that were written confirmed.
   */
  async untilFlushed<Result>(work: (again: boolean) => Promise<Result>): Promise<Result> {
    for (let again = false; ; again = true) {
      try {
        if (again) await this.image.prove(this.targetName, (places) => this.#compare(places));
        const result = await work(again);
        await this.#flush();
        this.#reconnectBudget.progressed();
        return result;
      } catch (error) {
        // What a sealing target had gathered is gone with its connection.
        const final = this.#facts?.abilities.seals === true || this.memory.control.stopped;
        if (!isLost(error) || final) throw error;
        await this.#reconnect(error);
      }
    }
  }

  async #flush(): Promise<void> {
    const { flush, seals, multiConnection } = this.facts.abilities;
    if (!flush) return;
    // Only a server that supports several connections promises that a flush on one covers the writes of the others.
    if (seals === true || !multiConnection) await this.all((thread) => thread.call('flush', undefined));
    else await this.first.call('flush', undefined);
    this.image.confirm(this.memory.unconfirmed, await this.takeWitnesses());
    this.memory.unconfirmed.fill(false);
  }

  /** The witnesses of what was sent since this was asked last. */
  async takeWitnesses(): Promise<Witness[]> {
    return (await this.all((thread) => thread.call('takeWitnesses', undefined))).flat();
  }

  /** By every connection: each may be answered by a server of its own. */
  #compare(places: readonly Witness[]): Promise<CompareResult[]> {
    return this.all((thread) => thread.call('compare', { places }));
  }

  /** True where a connection lost from now on cannot be made good from the source as it is. */
  get hasUnconfirmed(): boolean {
    return !this.memory.unconfirmed.isEmpty();
  }

  /** For a connection that was lost with such units on the way. */
  lostUnconfirmed(): AgentError {
    return new AgentError(
      'TARGET_WRITE_ERROR',
      `${this.targetName} was lost after the last look at ${this.#setup.sourcePath}, with blocks on the way that no ` +
        `flush had confirmed and that can no longer be read as they were`,
      { hint: 'start the backup again; a target that offers flush is resumed' },
    );
  }

  /** Ends all work under way with CANCELLED, soon. */
  stop(): void {
    this.memory.control.stopped = true;
    for (const thread of this.#threads) thread.abort();
  }

  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }
}

function isLost(error: unknown): boolean {
  return error instanceof AgentError && errorKinds[error.code].retry === true;
}

/** Whether an additional connection that failed so can be done without. */
function isRefusal(error: unknown): boolean {
  return error instanceof AgentError && refusals.has(error.code);
}

const refusals: ReadonlySet<ErrorCode> = new Set([
  'TARGET_UNREACHABLE',
  'NBD_CONNECTION_LOST',
  'NBD_REFUSED',
  'NBD_EXPORT_UNKNOWN',
  'NBD_PROTOCOL',
  'NBD_TLS',
]);

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
