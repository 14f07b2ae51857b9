/**
 * What has to be undone, undone in reverse order: at the end, after a failure, after Ctrl-C. A step that fails
 * is told and the others still run.
 */
export class Cleanup {
  readonly #steps: { what: string; undo: () => Promise<unknown> }[] = [];
  #closed = false;
  #done: Promise<void> = Promise.resolve();

  /** Throws where everything is being undone already: what was just made is undone too, and nothing goes on. */
  add(what: string, undo: () => Promise<unknown>): void {
    this.#steps.push({ what, undo });
    if (!this.#closed) return;
    void this.run();
    throw new Error('interrupted');
  }

  /** Undoes everything that is there to undo; may be called again. */
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
