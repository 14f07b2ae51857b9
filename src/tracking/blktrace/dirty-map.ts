/**
 * The dirty map of one device: two bitmaps that change places. Writes are marked in the active one. A take makes it the
 * taken one, which is kept until the take is committed. So marks that were taken and not committed are taken again.
 *
 * Only the reader's thread writes to the bitmaps. The daemon's thread copies the taken one between a take's answer and
 * its commit, when the reader's thread does not write to it.
 */
import { Bitmap } from '../../base/bitmap.ts';

export class DirtyMap {
  readonly size: number;
  readonly unit: number;
  #active: Bitmap;
  #taken: Bitmap;
  #takenIsEmpty = true;
  #generation = 0;
  #units = 0;

  /** Uses buffers that are shared with the daemon's thread. */
  constructor(size: number, unit: number, buffers: readonly [SharedArrayBuffer, SharedArrayBuffer]) {
    this.size = size;
    this.unit = unit;
    this.#active = new Bitmap(size, unit, buffers[0]);
    this.#taken = new Bitmap(size, unit, buffers[1]);
  }

  /** The number of units that are marked in either map. */
  get units(): number {
    return this.#units;
  }

  /** Marks `[start, end)`, in bytes. Bytes outside the device are ignored. */
  mark(start: number, end: number): void {
    const first = Math.max(start, 0);
    this.#set(this.#active, first, Math.min(end, this.size));
  }

  /**
   * Takes the marks since the last committed take. Adds `also` (the writes under way) to the taken map, not to the
   * active map.
   */
  take(also: Iterable<readonly [offset: number, length: number]>): { generation: number; map: Bitmap } {
    if (this.#takenIsEmpty) {
      [this.#active, this.#taken] = [this.#taken, this.#active];
    } else {
      this.#taken.or(this.#active);
      this.#active.fill(false);
    }
    this.#takenIsEmpty = false;
    for (const [offset, length] of also) this.#set(this.#taken, offset, offset + length);
    this.#generation++;
    return { generation: this.#generation, map: this.#taken };
  }

  /** Forgets the marks of this take if it is the last one; a later take holds them all. */
  commit(generation: number): void {
    if (generation !== this.#generation || this.#takenIsEmpty) return;
    this.#taken.fill(false);
    this.#takenIsEmpty = true;
    this.#units = this.#active.count();
  }

  #set(map: Bitmap, start: number, end: number): void {
    const last = Math.ceil(end / this.unit);
    const other = map === this.#active ? this.#taken : this.#active;
    for (let index = Math.floor(start / this.unit); index < last;) {
      const word = index >>> 5;
      const bit = index & 31;
      const bits = Math.min(32 - bit, last - index);
      const mask = bits === 32 ? -1 : ((1 << bits) - 1) << bit;
      const before = map.word(word);
      const fresh = mask & ~(before | other.word(word));
      if (fresh !== 0) this.#units += popcount(fresh);
      if ((before & mask) !== mask) map.orWord(word, mask);
      index += bits;
    }
  }
}

function popcount(word: number): number {
  let v = word - ((word >>> 1) & 0x55555555);
  v = (v & 0x33333333) + ((v >>> 2) & 0x33333333);
  return (((v + (v >>> 4)) & 0x0f0f0f0f) * 0x01010101) >>> 24;
}
