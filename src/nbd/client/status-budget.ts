/**
 * Limits the block status requests of a connection. The answers only save traffic. So a server that answers slowly or in
 * tiny pieces gets no further requests, and the ranges without an answer count as not zero.
 */

/** Time limit for all status requests of a connection, milliseconds. */
const mostMs = 120_000;
/** The number of incomplete answers after which their average counts. */
const freeAnswers = 64;
/** The bytes that incomplete answers must cover on average. */
const leastBytes = 64 * 1024;

export class StatusBudget {
  #end: number | undefined;
  #answers = 0;
  #bytes = 0;

  /** Returns whether another status request may be sent. */
  lasts(): boolean {
    const now = performance.now();
    this.#end ??= now + mostMs;
    return now < this.#end && (this.#answers < freeAnswers || this.#bytes >= this.#answers * leastBytes);
  }

  /** Notes that an answer covers `covered` of the `asked` bytes. */
  answered(covered: number, asked: number): void {
    if (covered >= asked) return;
    this.#answers++;
    this.#bytes += covered;
  }
}
