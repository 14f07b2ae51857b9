/** What a frozen pass found different, kept in memory until the thaw; bounded. */

export interface SpoolEntry {
  readonly offset: number;
  readonly length: number;
  /** Undefined for zeros. */
  readonly data: Buffer | undefined;
}

export class Spool {
  readonly #limit: number;
  #entries: SpoolEntry[] = [];
  #prints: { offset: number; prints: Buffer }[] = [];
  #held = 0;

  /** `limit`: bytes of data at most; zeros cost nothing. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  get entries(): readonly SpoolEntry[] {
    return this.#entries;
  }

  /** Copies `data` (or notes zeros); false where there is no room for it. */
  keep(offset: number, data: Uint8Array, zero: boolean): boolean {
    if (!zero && this.#held + data.length > this.#limit) return false;
    this.#entries.push({ offset, length: data.length, data: zero ? undefined : Buffer.from(data) });
    if (!zero) this.#held += data.length;
    return true;
  }

  /** Fingerprints of what was sent at once, to be written when files may be written again. */
  get prints(): readonly { readonly offset: number; readonly prints: Buffer }[] {
    return this.#prints;
  }

  keepPrints(offset: number, prints: Buffer): void {
    this.#prints.push({ offset, prints });
  }

  clear(): void {
    this.#entries = [];
    this.#prints = [];
    this.#held = 0;
  }
}
