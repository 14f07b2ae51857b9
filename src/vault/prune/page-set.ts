/**
 * A set of page names, for walks that visit each page once: 128 bits of each name in an open hash table. Confusing
 * two pages would lose data, but with 128 bits it does not happen. 10 TiB have 160,000 pages, and each point adds its
 * changed pages. Two million pages need 64 MiB.
 */
const wordsPerName = 4;

export class PageSet {
  #table: Uint32Array;
  #mask: number;
  #size = 0;

  /** `slots` must be a power of two. */
  constructor(slots = 1024) {
    this.#table = new Uint32Array(slots * wordsPerName);
    this.#mask = slots - 1;
  }

  get size(): number {
    return this.#size;
  }

  has(name: Uint8Array): boolean {
    return this.#find(words(name)) < 0;
  }

  /** Returns false if the name was already in the set. */
  add(name: Uint8Array): boolean {
    const key = words(name);
    const slot = this.#find(key);
    if (slot < 0) return false;
    this.#table.set(key, slot);
    this.#size++;
    if (this.#size * 2 > this.#mask) this.#grow();
    return true;
  }

  /** Returns the slot for the name, or -1 if the set has it. */
  #find(key: Words): number {
    const table = this.#table;
    for (let slot = key[0] & this.#mask; ; slot = (slot + 1) & this.#mask) {
      const at = slot * wordsPerName;
      const [a, b, c, d] = [table[at], table[at + 1], table[at + 2], table[at + 3]];
      if (a === 0 && b === 0 && c === 0 && d === 0) return at;
      if (a === key[0] && b === key[1] && c === key[2] && d === key[3]) return -1;
    }
  }

  #grow(): void {
    const old = this.#table;
    this.#mask = this.#mask * 2 + 1;
    this.#table = new Uint32Array((this.#mask + 1) * wordsPerName);
    for (let at = 0; at < old.length; at += wordsPerName) {
      const key: Words = [old[at]!, old[at + 1]!, old[at + 2]!, old[at + 3]!];
      if (key[0] !== 0 || key[1] !== 0 || key[2] !== 0 || key[3] !== 0) this.#table.set(key, this.#find(key));
    }
  }
}

type Words = readonly [number, number, number, number];

/** The result is never all zero, because zeros mark an empty slot. */
function words(name: Uint8Array): Words {
  const at = (offset: number): number =>
    (name[offset]! | (name[offset + 1]! << 8) | (name[offset + 2]! << 16) | (name[offset + 3]! << 24)) >>> 0;
  return [at(0), at(4), at(8), (at(12) | 1) >>> 0];
}
