/**
 * Notices a server that makes no progress while something is under way. One timer, whatever the number of requests;
 * noting progress costs a look at the clock and no more.
 */
export interface SilenceOptions {
  /** How often to check, milliseconds. */
  readonly intervalMs: number;
  /** Longest time without progress that is allowed at this moment; 0 if nothing is under way, which ends the watch. */
  readonly limitMs: () => number;
  /** When the oldest request under way has to be answered, whatever else is: by the clock of `performance.now`. */
  readonly latest: () => number;
  /** Bytes of ours that wait to be sent. While these become fewer, there is progress: the line is slow. */
  readonly unsent: () => number;
  /** `idleMs`: time since the last progress. */
  readonly onSilence: (idleMs: number) => void;
}

export class SilenceWatch {
  readonly #options: SilenceOptions;
  #lastHeard = 0;
  #unsent = 0;
  #timer: NodeJS.Timeout | undefined;
  #confirming: NodeJS.Immediate | undefined;

  constructor(options: SilenceOptions) {
    this.#options = options;
  }

  /** There was progress, or something begins to be waited for. */
  heard(): void {
    this.#lastHeard = performance.now();
  }

  /** To be called when something is under way; does nothing where the watch is on. */
  start(): void {
    if (this.#timer !== undefined || this.#confirming !== undefined) return;
    this.#unsent = this.#options.unsent();
    this.#timer = setTimeout(this.#look, this.#options.intervalMs);
  }

  stop(): void {
    clearTimeout(this.#timer);
    clearImmediate(this.#confirming);
    this.#timer = undefined;
    this.#confirming = undefined;
  }

  /**
   * Timers run before the input that arrived meanwhile is read. So where this process itself was held up, the
   * verdict waits until that input has had its turn.
   */
  readonly #look = (): void => {
    this.#timer = undefined;
    const left = this.#left();
    if (left === undefined) return;
    if (left > 0) this.#again(left);
    else this.#confirming = setImmediate(() => (this.#confirming = setImmediate(this.#confirm)));
  };

  readonly #confirm = (): void => {
    this.#confirming = undefined;
    const left = this.#left();
    if (left === undefined) return;
    if (left > 0) this.#again(left);
    else this.#options.onSilence(Math.round(performance.now() - this.#lastHeard));
  };

  #again(left: number): void {
    this.#timer = setTimeout(this.#look, Math.min(left + 1, this.#options.intervalMs));
  }

  /** Milliseconds until the time is over; undefined where there is nothing to wait for. */
  #left(): number | undefined {
    const limit = this.#options.limitMs();
    if (limit === 0) return undefined;
    const unsent = this.#options.unsent();
    if (unsent < this.#unsent) this.heard();
    this.#unsent = unsent;
    return Math.min(this.#lastHeard + limit, this.#options.latest()) - performance.now();
  }
}
