/**
 * A bitmap of a device: one bit per unit (a power of two bytes). The bits are in a SharedArrayBuffer, so all
 * copying threads see them without copies. A bitmap takes size / unit / 8 bytes: 2 MiB per TiB for units of 64 KiB.
 */
import type { Extent } from './extents.ts';

/** Words of a page: 4 KiB, the amount of memory that the kernel gives at once. */
const pageWords = 1024;
const zeroPage = Buffer.alloc(pageWords * 4);
const onesPage = Buffer.alloc(pageWords * 4, 0xff);

export class Bitmap {
  /** Device size in bytes; the last unit may be short. */
  readonly size: number;
  /** Bytes per bit, a power of two. */
  readonly unit: number;
  /** Number of units. */
  readonly units: number;
  readonly words: Int32Array<SharedArrayBuffer>;
  /** The memory of `words` as bytes, to compare whole pages at the speed of memory. */
  readonly #bytes: Buffer;

  constructor(size: number, unit: number, buffer?: SharedArrayBuffer) {
    if (!Number.isInteger(Math.log2(unit))) throw new RangeError(`unit ${unit} is not a power of two`);
    this.size = size;
    this.unit = unit;
    this.units = Math.ceil(size / unit);
    const bytes = Math.ceil(this.units / 32) * 4;
    this.words = new Int32Array(buffer ?? new SharedArrayBuffer(bytes));
    if (this.words.byteLength < bytes)
      throw new RangeError(`a bitmap of ${bytes} bytes does not fit into ${this.words.byteLength}`);
    this.#bytes = Buffer.from(this.words.buffer);
  }

  has(index: number): boolean {
    return ((this.words[index >>> 5] ?? 0) & (1 << (index & 31))) !== 0;
  }

  /** True if any unit that the byte range touches is set. */
  touches(offset: number, length: number): boolean {
    if (length <= 0) return false;
    const end = Math.min(this.units, Math.ceil((offset + length) / this.unit));
    return this.#next(Math.floor(offset / this.unit), end, true) < end;
  }

  /** Sets every unit that the byte range touches. */
  mark(offset: number, length: number): void {
    if (length <= 0) return;
    this.#fill(
      Math.floor(offset / this.unit),
      Math.ceil(Math.min(offset + length, this.size) / this.unit),
      true,
    );
  }

  /** Clears every unit that lies wholly inside the byte range (the device's end counts as a boundary). */
  clear(offset: number, length: number): void {
    const end = offset + length;
    const last = end >= this.size ? this.units : Math.floor(end / this.unit);
    this.#fill(Math.ceil(offset / this.unit), last, false);
  }

  fill(value: boolean): void {
    if (value) this.#fill(0, this.units, true);
    else for (const [from, to] of this.#pages()) this.words.fill(0, from, to);
  }

  /** this = other. */
  copy(other: Bitmap): void {
    this.#sameShape(other);
    const { words } = this;
    for (let from = 0; from < words.length; from += pageWords) {
      const to = Math.min(from + pageWords, words.length);
      if (!isSame(this.#bytes, from, to, other.#bytes, from)) words.set(other.words.subarray(from, to), from);
    }
  }

  /**
   * The pages that are not all zeros, as ranges of words. Most memory of a large device's bitmap was never written, and
   * such memory costs nothing. To skip a page takes a tenth of the time of reading each of its words.
   */
  *#pages(): Generator<readonly [from: number, to: number]> {
    for (let from = 0; from < this.words.length; from += pageWords) {
      const to = Math.min(from + pageWords, this.words.length);
      if (!isSame(this.#bytes, from, to, zeroPage, 0)) yield [from, to];
    }
  }

  #fill(from: number, to: number, value: boolean): void {
    const { words } = this;
    for (let index = from; index < to;) {
      if ((index & 31) === 0 && to - index >= 32) {
        const wholeWords = (to - index) >>> 5;
        words.fill(value ? -1 : 0, index >>> 5, (index >>> 5) + wholeWords);
        index += wholeWords * 32;
      } else {
        const word = words[index >>> 5] ?? 0;
        const bit = 1 << (index & 31);
        words[index >>> 5] = value ? word | bit : word & ~bit;
        index++;
      }
    }
  }

  /** this |= other. Both must describe the same size and unit. */
  or(other: Bitmap): void {
    this.#sameShape(other);
    const { words } = this;
    for (const [from, to] of other.#pages())
      for (let i = from; i < to; i++) {
        const before = words[i]!;
        const after = before | other.words[i]!;
        if (after !== before) words[i] = after;
      }
  }

  /** this &= ~other. */
  andNot(other: Bitmap): void {
    this.#sameShape(other);
    const { words } = this;
    for (const [from, to] of this.#pages())
      for (let i = from; i < to; i++) {
        const before = words[i]!;
        const after = before & ~other.words[i]!;
        if (after !== before) words[i] = after;
      }
  }

  /** this &= other. */
  and(other: Bitmap): void {
    this.#sameShape(other);
    const { words } = this;
    for (const [from, to] of this.#pages())
      for (let i = from; i < to; i++) {
        const before = words[i]!;
        const after = before & other.words[i]!;
        if (after !== before) words[i] = after;
      }
  }

  /** Returns this & other as a new bitmap. Only its pages with set units use memory. */
  intersection(other: Bitmap): Bitmap {
    this.#sameShape(other);
    const result = new Bitmap(this.size, this.unit);
    for (const [from, to] of other.#pages())
      for (let i = from; i < to; i++) {
        const word = this.words[i]! & other.words[i]!;
        if (word !== 0) result.words[i] = word;
      }
    return result;
  }

  clone(): Bitmap {
    const copy = new Bitmap(this.size, this.unit);
    copy.copy(this);
    return copy;
  }

  /** Number of set units. */
  count(): number {
    let total = 0;
    for (const [from, to] of this.#pages())
      for (let i = from; i < to; i++) {
        const word = this.words[i]!;
        if (word !== 0) total += popcount(word);
      }
    return total;
  }

  /** Bytes under set units; the last unit counts with its true length. */
  bytes(): number {
    const total = this.count() * this.unit;
    const short = this.units * this.unit - this.size;
    return this.units > 0 && this.has(this.units - 1) ? total - short : total;
  }

  isEmpty(): boolean {
    return this.#pages().next().done === true;
  }

  /** The set units of `[from, to)`, both rounded out to units, as maximal extents in order. */
  *extents(from = 0, to = this.size): Generator<Extent> {
    const last = Math.min(this.units, Math.ceil(to / this.unit));
    for (let index = Math.floor(from / this.unit); ;) {
      index = this.#next(index, last, true);
      if (index >= last) return;
      const end = this.#next(index, last, false);
      const offset = index * this.unit;
      yield { offset, length: Math.min(end * this.unit, this.size) - offset };
      index = end;
    }
  }

  /** First unit of `[index, units)` that is set (or clear); `units` if there is none. */
  #next(index: number, units: number, set: boolean): number {
    const { words } = this;
    const skip = set ? 0 : -1;
    while (index < units) {
      if ((index & 31) === 0) {
        let word = index >>> 5;
        while (word * 32 < units && words[word] === skip) {
          const isPage = word % pageWords === 0 && word + pageWords <= words.length;
          const whole = isPage && isSame(this.#bytes, word, word + pageWords, set ? zeroPage : onesPage, 0);
          word += whole ? pageWords : 1;
        }
        index = word * 32;
        if (index >= units) return units;
      }
      if (this.has(index) === set) return index;
      index++;
    }
    return units;
  }

  #sameShape(other: Bitmap): void {
    if (other.size !== this.size || other.unit !== this.unit)
      throw new RangeError(
        `bitmaps differ: ${this.size} bytes in units of ${this.unit}, ${other.size} in units of ${other.unit}`,
      );
  }
}

function popcount(word: number): number {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return (((v + (v >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}

/** True if the words `[from, to)` are equal to the words of `other` that begin at `at`. */
function isSame(bytes: Buffer, from: number, to: number, other: Buffer, at: number): boolean {
  return bytes.compare(other, at * 4, (at + to - from) * 4, from * 4, to * 4) === 0;
}
