/**
 * Feeds the controller (impact-controller.ts) from the kernel's counters of the device, and gives its decisions to the
 * copying threads. All threads of a device rest at the same time.
 */
import type { WriteCounters } from '../../devices/write-counters.ts';
import type { ImpactLevel } from '../impact.ts';
import type { Control } from './control.ts';
import { ImpactController } from './impact-controller.ts';

/** Milliseconds between two samples. */
const sampleMs = 100;

export class ImpactWatch {
  readonly #controller: ImpactController;
  readonly #control: Control;
  readonly #counters: () => WriteCounters | undefined;
  #timer: NodeJS.Timeout | undefined;
  #before: WriteCounters | undefined;
  /** True if our threads are in a pass that is held back. */
  #copying = false;
  /** The first sample of a rest still has reads that were under way when it began, so it is not used. */
  #rest: 'none' | 'begins' | 'lasts' = 'none';

  /** `counters`: see `openWriteCounters`. */
  constructor(level: ImpactLevel, control: Control, counters: () => WriteCounters | undefined) {
    this.#controller = new ImpactController(level);
    this.#control = control;
    this.#counters = counters;
  }

  start(): void {
    this.#timer ??= setInterval(() => this.sample(), sampleMs);
    this.#timer.unref();
    this.#control.share = this.#controller.share;
  }

  stop(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#rest = 'none';
    this.#control.share = 1;
  }

  set copying(value: boolean) {
    this.#copying = value;
    // The next sample would mix the time before and after the change, so it is dropped.
    this.#before = undefined;
    this.#endRest();
  }

  /** Takes a sample. Called by the timer. */
  sample(): void {
    const before = this.#before;
    const now = this.#counters();
    this.#before = now;
    if (before === undefined || now === undefined) return;
    const since = { writes: now.writes - before.writes, ms: now.ms - before.ms };
    if (!this.#copying) this.#controller.noteResting(since);
    else if (this.#rest === 'begins') this.#rest = 'lasts';
    else if (this.#rest === 'lasts') {
      this.#controller.noteResting(since);
      this.#endRest();
    } else {
      this.#controller.noteCopying(since);
      if (this.#controller.restDue) {
        this.#rest = 'begins';
        this.#control.share = 0;
      } else this.#control.share = this.#controller.share;
    }
  }

  #endRest(): void {
    this.#rest = 'none';
    if (this.#timer !== undefined) this.#control.share = this.#controller.share;
  }
}
