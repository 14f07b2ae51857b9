/**
 * The copying threads of one device and its target, their shared memory, and their connections. If a connection is
 * lost, they connect again, and all work that no flush has confirmed is repeated (invariant 3).
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
  /** The path that the bytes are read from. */
  readonly sourcePath: string;
  /** Bytes. */
  readonly deviceSize: number;
  /** Start offsets of the partitions with writable mounts, in bytes. Empty unless the device is a whole disk. */
  readonly livePartitions: readonly number[];
  /** Undefined if no map is read. */
  readonly expected?: ExpectedFilesystems;
  readonly target: TargetSpec;
  /** Default write. */
  readonly access?: 'read' | 'write';
  readonly threads: number;
  /** Bytes per bit of the allocation map and of the blocks to send: a power of two. */
  readonly unit: number;
  /** Undefined if nothing will be compared. */
  readonly fingerprintPath: string | undefined;
  /** The key of the fingerprints, 32 bytes. */
  readonly key: Uint8Array;
  /** Bytes per second. */
  readonly rate: number | undefined;
  readonly onReadError: 'fail' | 'zero';
  /** Memory for blocks that wait for the thaw, of all devices of the job. */
  readonly room: SpoolRoom;
  readonly reconnectMs: number;
  /** How passes are held back. Undefined if they are not. */
  readonly impact?: ImpactLevel | undefined;
  /** See `openWriteCounters`. */
  readonly writes?: () => WriteCounters | undefined;
}

/** Requests under way per thread. They hide the latency to the target; all buffers together take 8 MiB. */
const depthAlone = 8;
const depthShared = 4;

/** Milliseconds that a server that is back may refuse a further connection which the job can do without. */
const refusalMs = 2000;

/** Memory that all threads of a pool and their coordinator share. ThreadSetup describes the bitmaps. */
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
  /** True if threads keep data in memory that no other thread has, so none of them can be ended. */
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

  /** Returns how often the connection was lost and came back. */
  get reconnects(): number {
    return this.#reconnects;
  }

  /** The reason why fewer connections than wanted are in use. Undefined if none was refused. */
  get refused(): string | undefined {
    return this.#refused;
  }

  /** Connects, checks the target, and adds threads if it supports several connections. */
  async open(): Promise<TargetFacts> {
    const { target, threads } = this.#setup;
    const opening = this.#addThread().call('open', { waitMs: 0 });
    // A vault takes any number of connections, so their threads can start at the same time.
    if (target.kind === 'vault') this.#addThreads(threads);
    const facts = await opening;
    this.#check(facts);
    this.#facts = facts;
    if (facts.abilities.multiConnection) this.#addThreads(threads);
    await this.#openOthers((thread) => thread.call('open', { waitMs: 0 }));
    return facts;
  }

  /**
   * Opens further connections. A server may refuse them, for example because of its limit of clients. The job then
   * continues with fewer, unless a thread keeps data that no other has.
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

  /** From now on no thread keeps data that no other has. All writes are flushed. */
  async keepNone(): Promise<void> {
    this.keepAll = false;
    await this.#dismissOthers(this.facts);
  }

  /** Ends all threads but the first, if the server does not support several connections. */
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

  /** Waits for all threads, even if one fails. A failure other than a lost connection takes precedence. */
  async all<Result>(call: (thread: CopyThread, index: number) => Promise<Result>): Promise<Result[]> {
    const outcomes = await Promise.allSettled(
      this.#threads.map(async (thread, index) => {
        try {
          return await call(thread, index);
        } catch (error) {
          // When one thread has failed, the work of the others is of no use.
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
    // The server may have restarted with another image: no place is known to be zero any more.
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

  /** Waits in short steps, so that a cancel does not have to wait. */
  async #rest(ms: number): Promise<void> {
    for (let left = ms; left > 0 && !this.memory.control.stopped; left -= 100)
      await sleep(Math.min(left, 100));
    if (this.memory.control.stopped) throw new AgentError('CANCELLED', 'Cancelled');
  }

  /**
   * Runs `work` and flushes. After a lost connection, reconnects, proves that the target still has the same image, and
   * repeats both. Only after that are the written units confirmed.
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
        // A sealing target has lost the data that it buffered for its connection.
        const final = this.#facts?.abilities.seals === true || this.memory.control.stopped;
        if (!isLost(error) || final) throw error;
        await this.#reconnect(error);
      }
    }
  }

  async #flush(): Promise<void> {
    const { flush, seals, multiConnection } = this.facts.abilities;
    if (!flush) return;
    // Only a server that supports several connections promises that a flush on one covers the writes of all others.
    if (seals === true || !multiConnection) await this.all((thread) => thread.call('flush', undefined));
    else await this.first.call('flush', undefined);
    this.image.confirm(this.memory.unconfirmed, await this.takeWitnesses());
    this.memory.unconfirmed.fill(false);
  }

  /** Returns the witnesses of the data that was sent since the last call. */
  async takeWitnesses(): Promise<Witness[]> {
    return (await this.all((thread) => thread.call('takeWitnesses', undefined))).flat();
  }

  /** Uses every connection: each may reach a different server. */
  #compare(places: readonly Witness[]): Promise<CompareResult[]> {
    return this.all((thread) => thread.call('compare', { places }));
  }

  /** True if a connection that is lost from now on cannot be repaired from the source as it is. */
  get hasUnconfirmed(): boolean {
    return !this.memory.unconfirmed.isEmpty();
  }

  /** The error for a connection that was lost with such units under way. */
  lostUnconfirmed(): AgentError {
    return new AgentError(
      'TARGET_WRITE_ERROR',
      `${this.targetName} was lost after the last look at ${this.#setup.sourcePath}, with blocks on the way that no ` +
        `flush had confirmed and that can no longer be read as they were`,
      { hint: 'start the backup again; a target that offers flush is resumed' },
    );
  }

  /** Soon ends all work under way with CANCELLED. */
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

/** True if the job can do without an additional connection that failed with this error. */
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
