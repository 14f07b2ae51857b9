/**
 * Makes a copying thread spare other work on the machine, but only within `during`. Its reads of the source have I/O
 * class idle. It pauses between them for as long as the coordinator demands (impact-watch.ts). And it has a higher nice
 * value.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { withLoweredPriority } from '../../base/thread-priority.ts';
import type { DirectSource } from '../../block/source.ts';
import { type IoClass, setIoClass } from '../../linux/io-priority.ts';
import type { ImpactLevel } from '../impact.ts';
import type { Control } from './control.ts';
import { ReadTurns } from './read-turns.ts';

/** Milliseconds between two checks of the coordinator's share while the thread rests, and of a stop while it pauses. */
const restSlice = 5;
const pauseSlice = 100;

export class Manners {
  readonly #level: ImpactLevel;
  readonly #control: Control;
  readonly #turns: ReadTurns;
  #active = false;
  #ioClass: IoClass = 'none';
  /** Milliseconds of reads since `#since`, and of waiting that an urgent read would not have had. */
  #busy = 0;
  #waited = 0;
  #since = 0;

  constructor(level: ImpactLevel, control: Control) {
    this.#level = level;
    this.#control = control;
    this.#turns = new ReadTurns(level);
  }

  /** Returns the source, whose reads then spare other work. */
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
    // The job is stopped; the caller throws.
    if (share === 0) return;
    const other = performance.now() - this.#since - this.#busy;
    const ms = this.#turns.pause(share, this.#busy, other);
    const start = performance.now();
    // The wait is split, so that a cancel does not have to wait for it.
    for (let left = ms; left > 0 && !control.stopped; left -= pauseSlice)
      await sleep(Math.min(left, pauseSlice));
    this.#since = performance.now();
    this.#busy = 0;
    if (ms > 0) this.#turns.paused(this.#since - start);
  }

  /** Returns the milliseconds that reads since the last call have waited only because other reads came first. */
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
