/**
 * Detects a server that makes no progress while requests are outstanding. It uses one timer for any number of requests.
 * Noting progress only reads the clock.
 */
export interface SilenceOptions {
  /** How often to check, milliseconds. */
  readonly intervalMs: number;
  /** Returns the longest time without progress that is allowed now. 0: no request is outstanding, so the watch ends. */
  readonly limitMs: () => number;
  /** Returns the deadline of the oldest outstanding request, by the clock of `performance.now`. */
  readonly latest: () => number;
  /** Returns the number of our unsent bytes. While it decreases, there is progress: the line is only slow. */
  readonly unsent: () => number;
  /** Called when the time is over. `idleMs` is the time since the last progress. */
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

  /** Notes progress, or the start of a wait. */
  heard(): void {
    this.#lastHeard = performance.now();
  }

  /** Starts the watch when a request is sent. Does nothing if the watch runs already. */
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
   * Checks the time. Timers run before the event loop reads new input. So if this process itself was delayed, the decision
   * waits until that input has been read.
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

  /** Returns the milliseconds until the time is over; undefined if no request is outstanding. */
  #left(): number | undefined {
    const limit = this.#options.limitMs();
    if (limit === 0) return undefined;
    const unsent = this.#options.unsent();
    if (unsent < this.#unsent) this.heard();
    this.#unsent = unsent;
    return Math.min(this.#lastHeard + limit, this.#options.latest()) - performance.now();
  }
}
