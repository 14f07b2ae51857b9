/** What frozen passes found to be sent, kept in memory until the thaw; bounded. */

export interface SpoolEntry {
  readonly offset: number;
  readonly length: number;
  /** Undefined for zeros. */
  readonly data: Buffer | undefined;
}

export class Spool {
  readonly #limit: number;
  #entries: SpoolEntry[] = [];
  #prints: { unit: number; print: Buffer }[] = [];
  #held = 0;

  /** `limit`: bytes of data at most; zeros cost nothing. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get entries(): readonly SpoolEntry[] {
    return this.#entries;
  }

  /** Fingerprints of the units that the entries belong to, to be written when these have been sent. */
  get prints(): readonly { unit: number; print: Buffer }[] {
    return this.#prints;
  }

  /** Copies `data` (or notes zeros); false where there is no room for it. */
  keep(offset: number, data: Uint8Array, zero: boolean): boolean {
    if (!zero && this.#held + data.length > this.#limit) return false;
    this.#entries.push({ offset, length: data.length, data: zero ? undefined : Buffer.from(data) });
    if (!zero) this.#held += data.length;
    return true;
  }

  keepPrint(print: { unit: number; print: Buffer } | undefined): void {
    if (print !== undefined) this.#prints.push(print);
  }

  clear(): void {
    this.#entries = [];
    this.#prints = [];
    this.#held = 0;
  }
}
