/**
 * Notices a server that has gone silent while something is under way. One timer, whatever the number of requests;
 * hearing something costs a look at the clock and no more.
 */
export interface SilenceOptions {
  /** How often to look, milliseconds. */
  readonly intervalMs: number;
  /** Longest allowed silence at this moment; 0 where nothing is under way, which ends the watch. */
  readonly limitMs: () => number;
  /** Bytes of ours that wait to be sent. While these become fewer, the server is not silent: the line is slow. */
  readonly unsent: () => number;
  readonly onSilence: (silentMs: number) => void;
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

  /** Something was heard, or begins to be waited for. */
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

  /** Milliseconds until the silence is too long; undefined where there is nothing to wait for. */
  #left(): number | undefined {
    const limit = this.#options.limitMs();
    if (limit === 0) return undefined;
    const unsent = this.#options.unsent();
    if (unsent < this.#unsent) this.heard();
    this.#unsent = unsent;
    return this.#lastHeard + limit - performance.now();
  }
}
