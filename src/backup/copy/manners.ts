/**
 * A copying thread's consideration for the rest of the machine, within `during` alone: its reads of the source are of I/O
 * class idle, it pauses between them for as long as the coordinator says (impact-watch.ts), and it is nice.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { withLoweredPriority } from '../../base/thread-priority.ts';
import type { DirectSource } from '../../block/source.ts';
import { type IoClass, setIoClass } from '../../linux/io-priority.ts';
import type { ImpactLevel } from '../impact.ts';
import type { Control } from './control.ts';
import { ReadTurns } from './read-turns.ts';

/** Milliseconds between two looks at what the coordinator says. */
const restSlice = 5;
const pauseSlice = 100;

export class Manners {
  readonly #level: ImpactLevel;
  readonly #control: Control;
  readonly #turns: ReadTurns;
  #active = false;
  #ioClass: IoClass = 'none';
  /** Milliseconds of reads since `#since`, and of waiting that no urgent read would have had. */
  #busy = 0;
  #waited = 0;
  #since = 0;

  constructor(level: ImpactLevel, control: Control) {
    this.#level = level;
    this.#control = control;
    this.#turns = new ReadTurns(level);
  }

  /** The source, as it is read with consideration. */
  source(source: DirectSource): DirectSource {
    const { name, size, sectorSize, alignment } = source;
    return {
      ...{ name, size, sectorSize, alignment },
      readAt: (offset, length) => source.readAt(offset, length),
      readInto: (buffer, offset) => this.#read(() => source.readInto(buffer, offset)),
      close: () => source.close(),
    };
  }

  async during<Result>(work: () => Promise<Result>): Promise<Result> {
    this.#active = true;
    this.#since = performance.now();
    this.#busy = 0;
    try {
      return await withLoweredPriority(this.#level.nice, work);
    } finally {
      this.#active = false;
      this.#become('none');
    }
  }

  /** Waits before the next read for as long as this thread has to. */
  async pause(): Promise<void> {
    if (!this.#active) return;
    const control = this.#control;
    let { share } = control;
    for (; share === 0 && !control.stopped; share = control.share) await sleep(restSlice);
    // Stopped; the caller throws.
    if (share === 0) return;
    const other = performance.now() - this.#since - this.#busy;
    const ms = this.#turns.pause(share, this.#busy, other);
    const start = performance.now();
    // In slices, so that a cancel does not wait for it.
    for (let left = ms; left > 0 && !control.stopped; left -= pauseSlice)
      await sleep(Math.min(left, pauseSlice));
    this.#since = performance.now();
    this.#busy = 0;
    if (ms > 0) this.#turns.paused(this.#since - start);
  }

  /** Milliseconds that reads since the last call have waited only because others came first. */
  takeWaited(): number {
    const waited = this.#waited;
    this.#waited = 0;
    return waited;
  }

  #read(work: () => void): void {
    if (!this.#active) {
      work();
      return;
    }
    this.#become(this.#turns.ioClass);
    const start = performance.now();
    try {
      work();
    } finally {
      const ms = performance.now() - start;
      this.#busy += ms;
      this.#waited += this.#turns.took(ms);
    }
  }

  #become(ioClass: IoClass): void {
    if (ioClass === this.#ioClass) return;
    setIoClass(ioClass);
    this.#ioClass = ioClass;
  }
}
