/**
 * The memory that the coordinator and its copying threads share, so that the loop of a thread sends no messages. It
 * holds the next item, pause and stop, the share of time for reading, each thread's counters, and the pace of a rate
 * limit.
 *
 * Each counter has one writer (a slot per thread), so a plain store is enough. Values that several threads change use
 * Atomics.
 */
import { bookBytes } from '../../block/rate-limit.ts';

const NEXT_ITEM = 0;
const STOP = 1;
const PAUSE = 2;
const SHARE = 3;
const FLAGS = 4;

/** The work of one thread since the pool was made. In bytes, unless stated otherwise; times are in milliseconds. */
export interface Counters {
  /** Bytes of the device that are finished. */
  done: number;
  /** Of these, bytes sent as data. */
  sent: number;
  /** Of these, zeros: written as zeroes, or known to be there already. */
  zero: number;
  /** Bytes read from the source, and the time that reading (and hashing) them took. */
  read: number;
  readMs: number;
  /** Bytes that matched their fingerprint. */
  same: number;
  /** Bytes that a comparing pass found different. */
  different: number;
  /** Bytes read back from the target that matched. */
  verified: number;
  /** Reads of blocks for the spool, and the time that they took. */
  scattered: number;
  scatteredMs: number;
}

const names: readonly (keyof Counters)[] = [
  'done',
  'sent',
  'zero',
  'read',
  'readMs',
  'same',
  'different',
  'verified',
  'scattered',
  'scatteredMs',
];

export class Control {
  readonly buffer: SharedArrayBuffer;
  readonly threads: number;
  readonly #flags: Int32Array;
  readonly #pace: BigInt64Array;
  readonly #counters: Float64Array;

  constructor(threads: number, buffer?: SharedArrayBuffer) {
    const flagBytes = FLAGS * 4;
    const paceBytes = 8;
    this.threads = threads;
    this.buffer = buffer ?? new SharedArrayBuffer(flagBytes + paceBytes + threads * names.length * 8);
    this.#flags = new Int32Array(this.buffer, 0, FLAGS);
    if (buffer === undefined) this.share = 1;
    this.#pace = new BigInt64Array(this.buffer, flagBytes, 1);
    this.#counters = new Float64Array(this.buffer, flagBytes + paceBytes, threads * names.length);
  }

  /** Returns the index of an item that no other thread has taken. */
  takeItem(): number {
    return Atomics.add(this.#flags, NEXT_ITEM, 1);
  }

  /** No thread gets an item any more, until `rewind`. */
  takeNoMore(): void {
    Atomics.store(this.#flags, NEXT_ITEM, 0x40000000);
  }

  rewind(): void {
    Atomics.store(this.#flags, NEXT_ITEM, 0);
  }

  get stopped(): boolean {
    return Atomics.load(this.#flags, STOP) !== 0;
  }

  set stopped(value: boolean) {
    Atomics.store(this.#flags, STOP, value ? 1 : 0);
  }

  get paused(): boolean {
    return Atomics.load(this.#flags, PAUSE) !== 0;
  }

  set paused(value: boolean) {
    Atomics.store(this.#flags, PAUSE, value ? 1 : 0);
  }

  /** The share of its time that a thread may spend reading in a pass that is held back. 0: all threads rest. */
  get share(): number {
    return Atomics.load(this.#flags, SHARE) / shareUnits;
  }

  set share(value: number) {
    Atomics.store(this.#flags, SHARE, Math.round(value * shareUnits));
  }

  add(thread: number, name: keyof Counters, amount: number): void {
    const index = thread * names.length + names.indexOf(name);
    this.#counters[index] = (this.#counters[index] ?? 0) + amount;
  }

  /** The sum over all threads. */
  total(): Counters {
    const sum = Object.fromEntries(names.map((name) => [name, 0])) as unknown as Counters;
    for (let thread = 0; thread < this.threads; thread++)
      names.forEach((name, i) => (sum[name] += this.#counters[thread * names.length + i] ?? 0));
    return sum;
  }

  /**
   * Books `bytes` at `rate` bytes per second, for all threads together. Returns the milliseconds that the caller must
   * wait.
   */
  book(bytes: number, rate: number): number {
    // This clock is the same in every thread. performance.now() starts with its thread.
    return bookBytes(this.#pace, bytes, rate, process.hrtime.bigint() / 1000n);
  }
}

const shareUnits = 10_000;
