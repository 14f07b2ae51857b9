/**
 * Undoes the steps of the quickstart in reverse order: at the end, after a failure, or after Ctrl-C. If an undo fails,
 * that is reported and the others still run.
 */
export class Cleanup {
  readonly #steps: { what: string; undo: () => Promise<unknown> }[] = [];
  #closed = false;
  #done: Promise<void> = Promise.resolve();

  /**
   * Adds a step. If the cleanup has already started, this step is undone too, and `add` throws so that the caller
   * stops.
   */
  add(what: string, undo: () => Promise<unknown>): void {
    this.#steps.push({ what, undo });
    if (!this.#closed) return;
    void this.run();
    throw new Error('interrupted');
  }

  /** Undoes all steps that were added and not yet undone. May be called again. */
  run(): Promise<void> {
    this.#closed = true;
    this.#done = this.#done.then(() => this.#undoAll());
    return this.#done;
  }

  async #undoAll(): Promise<void> {
    for (let step = this.#steps.pop(); step !== undefined; step = this.#steps.pop()) {
      try {
        await step.undo();
      } catch (error) {
        process.exitCode = 1;
        console.error(`quickstart: could not ${step.what}: ${(error as Error).message}`);
      }
    }
  }
}
