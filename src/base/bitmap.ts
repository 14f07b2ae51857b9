/**
 * A bitmap of a device: one bit per unit (a power of two bytes). The bits are in a SharedArrayBuffer, so all
 * copying threads see them without copies. A bitmap takes size / unit / 8 bytes: 2 MiB per TiB for units of 64 KiB.
 *
 * Behind the words, the same memory has a summary: one bit per page of words. No operation reads a page whose summary
 * bit is clear, so its time depends on the set units and not on the size of the device. A summary bit may be set although
 * its page is empty. It is never clear if the page has a set unit.
 *
 * Several threads may mark units at once (`orWord`). A thread sets the summary bit before it sets the unit. So another
 * thread that sees the unit also sees the summary bit. A thread that reads in between finds an empty page, as it would
 * have a moment before. Operations that only read never clear summary bits, because another thread may be marking.
 * `fill(false)`, `and`, `andNot`, `copy` and `load` clear them. While one of these changes a bitmap, no other thread may
 * mark in it: the mark would be hidden if its summary bit is cleared between its two steps.
 */
import type { Extent } from './extents.ts';

/** Words of a page: 4 KiB, the amount of memory that the kernel gives at once. */
const pageShift = 10;
const pageWords = 1 << pageShift;
const zeroPage = Buffer.alloc(pageWords * 4);
const onesPage = Buffer.alloc(pageWords * 4, 0xff);

type Range = readonly [from: number, to: number];

export class Bitmap {
  /** Device size in bytes; the last unit may be short. */
  readonly size: number;
  /** Bytes per bit, a power of two. */
  readonly unit: number;
  /** Number of units. */
  readonly units: number;
  /** The memory of the bitmap. The constructor takes it in another thread. */
  readonly buffer: SharedArrayBuffer;
  /**
   * The words as bytes, as files hold them. Only for reading: a unit that is set here is not in the summary. See `load`.
   */
  readonly content: Buffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  /** One bit per page of words. */
  readonly #summary: Int32Array<SharedArrayBuffer>;

  constructor(size: number, unit: number, buffer?: SharedArrayBuffer) {
    if (!Number.isInteger(Math.log2(unit))) throw new RangeError(`unit ${unit} is not a power of two`);
    this.size = size;
    this.unit = unit;
    this.units = Math.ceil(size / unit);
    const words = Math.ceil(this.units / 32);
    const pages = Math.ceil(words / pageWords);
    const bytes = (words + Math.ceil(pages / 32)) * 4;
    this.buffer = buffer ?? new SharedArrayBuffer(bytes);
    if (this.buffer.byteLength < bytes)
      throw new RangeError(`a bitmap of ${bytes} bytes does not fit into ${this.buffer.byteLength}`);
    this.content = Buffer.from(this.buffer, 0, words * 4);
    this.#words = new Int32Array(this.buffer, 0, words);
    this.#summary = new Int32Array(this.buffer, words * 4, Math.ceil(pages / 32));
  }

  has(index: number): boolean {
    return ((this.#words[index >>> 5] ?? 0) & (1 << (index & 31))) !== 0;
  }

  /** True if any unit that the byte range touches is set. */
  touches(offset: number, length: number): boolean {
    if (length <= 0) return false;
    const end = Math.min(this.units, Math.ceil((offset + length) / this.unit));
    return this.#nextSet(Math.floor(offset / this.unit), end) < end;
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
    else {
      for (const [from, to] of this.#pages()) this.#words.fill(0, from, to);
      this.#summary.fill(0);
    }
  }

  /** this = other. */
  copy(other: Bitmap): void {
    this.#sameShape(other);
    const words = this.#words;
    for (const [from, to] of this.#named(other, (mine, its) => mine | its))
      if (other.#hasName(from) && !other.#isZero(from, to)) {
        // A page without a name is not compared: to read memory that was never written costs as much as to write it.
        if (this.#hasName(from) && isSame(this.content, from, to, other.content, from)) continue;
        this.#name(from);
        words.set(other.#words.subarray(from, to), from);
      } else {
        if (!this.#isZero(from, to)) words.fill(0, from, to);
        this.#unname(from);
      }
  }

  /** Replaces all words by those that `content` of a bitmap of the same shape had. Throws RangeError. */
  load(content: NodeJS.ArrayBufferView): void {
    const bytes = Buffer.from(content.buffer, content.byteOffset, content.byteLength);
    if (bytes.length !== this.content.length)
      throw new RangeError(`a map of ${bytes.length} bytes, not ${this.content.length}`);
    this.fill(false);
    for (let from = 0; from < this.#words.length; from += pageWords) {
      const to = Math.min(from + pageWords, this.#words.length);
      if (isSame(bytes, from, to, zeroPage, 0)) continue;
      this.#name(from);
      bytes.copy(this.content, from * 4, from * 4, to * 4);
    }
  }

  /** Returns a word; another thread may be changing it. */
  word(index: number): number {
    return Atomics.load(this.#words, index);
  }

  /** Sets bits of a word; other threads may do so at the same time. */
  orWord(index: number, bits: number): void {
    this.#name(index);
    Atomics.or(this.#words, index, bits);
  }

  /** Clears bits of a word; other threads may do so, or set bits, at the same time. */
  andNotWord(index: number, bits: number): void {
    Atomics.and(this.#words, index, ~bits);
  }

  /** Sets the summary bit of the page that has the word. Most are set already, and to read is much faster than to set. */
  #name(word: number): void {
    if (!this.#hasName(word)) Atomics.or(this.#summary, summaryWord(word), summaryBit(word));
  }

  /** Clears the summary bit of the page that has the word. The page must be empty, and no other thread may mark. */
  #unname(word: number): void {
    Atomics.and(this.#summary, summaryWord(word), ~summaryBit(word));
  }

  #hasName(word: number): boolean {
    return (this.#summary[summaryWord(word)]! & summaryBit(word)) !== 0;
  }

  #isZero(from: number, to: number): boolean {
    return isSame(this.content, from, to, zeroPage, 0);
  }

  /** The pages that `choose` chooses of the summaries of both bitmaps, as ranges of words. */
  *#named(other: Bitmap, choose: (mine: number, its: number) => number): Generator<Range> {
    for (let at = 0; at < this.#summary.length; at++)
      for (let bits = choose(this.#summary[at]!, other.#summary[at]!); bits !== 0; bits &= bits - 1) {
        const from = (at * 32 + lowestBit(bits)) * pageWords;
        yield [from, Math.min(from + pageWords, this.#words.length)];
      }
  }

  /** The pages that are not all zeros and that the summary of `other` names too, as ranges of words. */
  *#pages(other: Bitmap = this): Generator<Range> {
    // A page that became empty may still be named. To compare it takes a tenth of the time of reading each word.
    for (const [from, to] of this.#named(other, (mine, its) => mine & its))
      if (!this.#isZero(from, to)) yield [from, to];
  }

  #fill(from: number, to: number, value: boolean): void {
    const words = this.#words;
    if (value) for (let word = from >>> 5; word * 32 < to; word = firstOfNextPage(word)) this.#name(word);
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
    const [words, its] = [this.#words, other.#words];
    for (const [from, to] of other.#pages()) {
      this.#name(from);
      for (let i = from; i < to; i++) {
        const before = words[i]!;
        const after = before | its[i]!;
        if (after !== before) words[i] = after;
      }
    }
  }

  /** this &= ~other. */
  andNot(other: Bitmap): void {
    this.#sameShape(other);
    const [words, its] = [this.#words, other.#words];
    for (const [from, to] of this.#pages(other)) {
      let left = 0;
      for (let i = from; i < to; i++) {
        const before = words[i]!;
        const after = before & ~its[i]!;
        if (after !== before) words[i] = after;
        left |= after;
      }
      if (left === 0) this.#unname(from);
    }
  }

  /** this &= other. */
  and(other: Bitmap): void {
    this.#sameShape(other);
    const [words, its] = [this.#words, other.#words];
    for (const [from, to] of this.#pages()) {
      let left = 0;
      if (!other.#hasName(from)) words.fill(0, from, to);
      else
        for (let i = from; i < to; i++) {
          const before = words[i]!;
          const after = before & its[i]!;
          if (after !== before) words[i] = after;
          left |= after;
        }
      if (left === 0) this.#unname(from);
    }
  }

  /** Returns this & other as a new bitmap. Only its pages with set units use memory. */
  intersection(other: Bitmap): Bitmap {
    this.#sameShape(other);
    const result = new Bitmap(this.size, this.unit);
    const [words, mine, its] = [result.#words, this.#words, other.#words];
    for (const [from, to] of this.#pages(other)) {
      // The result belongs to no other thread yet, so its summary may follow.
      let any = 0;
      for (let i = from; i < to; i++) {
        const word = mine[i]! & its[i]!;
        if (word !== 0) words[i] = word;
        any |= word;
      }
      if (any !== 0) result.#name(from);
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
    const words = this.#words;
    for (const [from, to] of this.#pages())
      for (let i = from; i < to; i++) {
        const word = words[i]!;
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
      index = this.#nextSet(index, last);
      if (index >= last) return;
      const end = this.#nextClear(index, last);
      const offset = index * this.unit;
      yield { offset, length: Math.min(end * this.unit, this.size) - offset };
      index = end;
    }
  }

  /** First set unit of `[index, units)`; `units` if there is none. */
  #nextSet(index: number, units: number): number {
    const words = this.#words;
    const end = Math.ceil(units / 32);
    let word = index >>> 5;
    // Of the first word, only the units from `index` on.
    let mask = -1 << (index & 31);
    while (word < end) {
      const pageEnd = firstOfNextPage(word);
      if (!this.#hasName(word)) word = this.#nextNamed(pageEnd);
      else if (word + pageWords === pageEnd && this.#isZero(word, Math.min(pageEnd, words.length)))
        word = pageEnd;
      else
        for (const stop = Math.min(pageEnd, end); word < stop; word++, mask = -1) {
          const bits = words[word]! & mask;
          if (bits !== 0) return Math.min(units, word * 32 + lowestBit(bits));
        }
      mask = -1;
    }
    return units;
  }

  /** First word of the first page from `word` on whose summary bit is set; the number of words if there is none. */
  #nextNamed(word: number): number {
    const summary = this.#summary;
    let mask = -summaryBit(word);
    for (let at = summaryWord(word); at < summary.length; at++, mask = -1) {
      const bits = summary[at]! & mask;
      if (bits !== 0) return (at * 32 + lowestBit(bits)) * pageWords;
    }
    return this.#words.length;
  }

  /** First clear unit of `[index, units)`; `units` if there is none. */
  #nextClear(index: number, units: number): number {
    const words = this.#words;
    const end = Math.ceil(units / 32);
    let mask = -1 << (index & 31);
    for (let word = index >>> 5; word < end; word++, mask = -1) {
      const bits = ~words[word]! & mask;
      if (bits !== 0) return Math.min(units, word * 32 + lowestBit(bits));
      if ((word + 1) % pageWords === 0)
        while (
          word + pageWords < words.length &&
          isSame(this.content, word + 1, word + 1 + pageWords, onesPage, 0)
        )
          word += pageWords;
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

/** Index of the word of the summary, and its bit, for the page that has this word. */
function summaryWord(word: number): number {
  return word >>> (pageShift + 5);
}

function summaryBit(word: number): number {
  return 1 << ((word >>> pageShift) & 31);
}

function firstOfNextPage(word: number): number {
  return ((word >>> pageShift) + 1) * pageWords;
}

/** Number of the lowest bit that is set; `bits` is not 0. */
function lowestBit(bits: number): number {
  return 31 - Math.clz32(bits & -bits);
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
