/**
 * The memory that the spools of all devices of a job may take together. Threads take it in slabs from one shared counter,
 * so that a busy device can use what idle ones do not need.
 */
import { GiB, KiB, MiB } from '../../base/bytes.ts';

/** Bytes that a thread takes at once. */
export const slabSize = 256 * KiB;

/** The share of the available memory, and its bounds in bytes. */
const share = 1 / 4;
const least = 32 * MiB;
const most = 4 * GiB;

/** Can be cloned to a thread. */
export interface SpoolRoomSetup {
  readonly counter: SharedArrayBuffer;
  /** Bytes. */
  readonly limit: number;
}

export class SpoolRoom {
  readonly setup: SpoolRoomSetup;
  readonly #taken: Int32Array;

  constructor(setup: SpoolRoomSetup) {
    this.setup = setup;
    this.#taken = new Int32Array(setup.counter);
  }

  /** Default: a share of the memory that the machine, and the control group of this process, have available now. */
  static create(limit = roomIn(process.availableMemory())): SpoolRoom {
    return new SpoolRoom({ counter: new SharedArrayBuffer(4), limit });
  }

  /** Bytes. */
  get limit(): number {
    return this.setup.limit;
  }

  /** Bytes that no thread has taken. */
  get free(): number {
    return Math.max(0, this.limit - Atomics.load(this.#taken, 0) * slabSize);
  }

  /** Takes one slab. False: none is left. */
  take(): boolean {
    if ((Atomics.add(this.#taken, 0, 1) + 1) * slabSize <= this.limit) return true;
    Atomics.sub(this.#taken, 0, 1);
    return false;
  }

  giveBack(slabs: number): void {
    Atomics.sub(this.#taken, 0, slabs);
  }
}

/** `available`: bytes of memory. */
export function roomIn(available: number): number {
  return Math.floor(Math.min(most, Math.max(least, available * share)));
}
