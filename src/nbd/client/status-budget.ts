/**
 * How long a server is asked for its zeros. The answers save sending and no more, so a server that gives them slowly or
 * in tiny pieces is asked no further; what it did not tell counts as not zero.
 */

/** Milliseconds for all questions of a connection. */
const mostMs = 120_000;
/** Answers that cover less than was asked for, before their average counts. */
const freeAnswers = 64;
/** Bytes that such an answer has to cover on average. */
const leastBytes = 64 * 1024;

export class StatusBudget {
  #end: number | undefined;
  #answers = 0;
  #bytes = 0;

  /** To be asked before each question. */
  lasts(): boolean {
    const now = performance.now();
    this.#end ??= now + mostMs;
    return now < this.#end && (this.#answers < freeAnswers || this.#bytes >= this.#answers * leastBytes);
  }

  /** An answer covers `covered` bytes of the `asked` ones. */
  answered(covered: number, asked: number): void {
    if (covered >= asked) return;
    this.#answers++;
    this.#bytes += covered;
  }
}
