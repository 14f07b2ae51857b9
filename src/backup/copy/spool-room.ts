/**
 * The memory, and the space in files, that the spools of all devices of a job may take together. Threads take it in
 * slabs from shared counters, so that a busy device can use room that idle devices do not need.
 */
import { GiB, KiB, MiB } from '../../base/bytes.ts';

/** Bytes that a thread takes at a time. */
export const slabSize = 256 * KiB;

/** The share of the available memory, and its limits in bytes. */
const share = 1 / 4;
const least = 32 * MiB;
const most = 4 * GiB;
/** If there is little memory, the lower limit is at most this share of it, but at least this many bytes. */
const leastShare = 1 / 2;
const atAnyRate = 8 * MiB;

/** The share of the memory that the rounds before the freeze leave to the freeze, if a file can take their blocks. */
const forFreeze = 1 / 4;

/** The share of the free space that spill files may take, and its limit in bytes. */
const spaceShare = 1 / 4;
const mostSpace = 16 * GiB;

/** The place for blocks that memory has no room for. */
export interface SpillPlace {
  /** Lies on no device of the job. */
  readonly directory: string;
  /** Bytes. */
  readonly limit: number;
}

/** Can be cloned to a thread. */
export interface SpoolRoomSetup {
  /** Slabs of memory that are taken, and slabs of files that are taken. */
  readonly counters: SharedArrayBuffer;
  /** Bytes of memory. */
  readonly limit: number;
  readonly spill: SpillPlace | undefined;
}

const memory = 0;
const files = 1;

export class SpoolRoom {
  readonly setup: SpoolRoomSetup;
  readonly #taken: Int32Array;

  constructor(setup: SpoolRoomSetup) {
    this.setup = setup;
    this.#taken = new Int32Array(setup.counters);
  }

  static create(limit: number, spill?: SpillPlace): SpoolRoom {
    return new SpoolRoom({ counters: new SharedArrayBuffer(8), limit, spill });
  }

  /** Bytes of memory and files. */
  get limit(): number {
    return this.setup.limit + (this.setup.spill?.limit ?? 0);
  }

  /** Bytes that no thread has taken. */
  get free(): number {
    return this.#free(memory, this.setup.limit) + this.#free(files, this.setup.spill?.limit ?? 0);
  }

  #free(what: number, limit: number): number {
    return Math.max(0, limit - Atomics.load(this.#taken, what) * slabSize);
  }

  /**
   * Takes one slab, of memory or of the file. Undefined if none is left. `frozen`: may use the share reserved for the
   * freeze.
   */
  take({ frozen }: { readonly frozen: boolean }): 'memory' | 'file' | undefined {
    const { limit, spill } = this.setup;
    if (this.#take(memory, frozen || spill === undefined ? limit : limit * (1 - forFreeze))) return 'memory';
    return spill !== undefined && this.#take(files, spill.limit) ? 'file' : undefined;
  }

  #take(what: number, limit: number): boolean {
    if ((Atomics.add(this.#taken, what, 1) + 1) * slabSize <= limit) return true;
    Atomics.sub(this.#taken, what, 1);
    return false;
  }

  giveBack(slabs: { readonly memory: number; readonly files: number }): void {
    Atomics.sub(this.#taken, memory, slabs.memory);
    Atomics.sub(this.#taken, files, slabs.files);
  }
}

/** `free`: bytes of the filesystem that unprivileged programs can still use. */
export function spaceIn(free: number): number {
  return Math.floor(Math.min(mostSpace, free * spaceShare));
}

/** `available`: bytes of memory that the machine and the control groups of this process have left (linux/memory.ts). */
export function roomIn(available: number): number {
  const lower = Math.max(atAnyRate, Math.min(least, available * leastShare));
  return Math.floor(Math.min(most, Math.max(lower, available * share)));
}
