/** Marks and clears a Bitmap that several threads change at the same time. */
import type { Bitmap } from '../../base/bitmap.ts';

/** Sets every unit that the byte range touches. */
export function markShared(bitmap: Bitmap, offset: number, length: number): void {
  each(bitmap, offset, length, (word, mask) => bitmap.orWord(word, mask));
}

/** Clears every unit that the byte range touches. */
export function clearShared(bitmap: Bitmap, offset: number, length: number): void {
  each(bitmap, offset, length, (word, mask) => {
    // A page that was never written stays that way, and takes no memory.
    if ((bitmap.word(word) & mask) !== 0) bitmap.andNotWord(word, mask);
  });
}

/** True if every unit that the byte range touches is set. */
export function allMarked(bitmap: Bitmap, offset: number, length: number): boolean {
  let all = true;
  each(bitmap, offset, length, (word, mask) => {
    if ((bitmap.word(word) & mask) !== mask) all = false;
  });
  return all;
}

function each(
  bitmap: Bitmap,
  offset: number,
  length: number,
  visit: (word: number, mask: number) => void,
): void {
  const last = Math.ceil(Math.min(offset + length, bitmap.size) / bitmap.unit) - 1;
  for (let index = Math.floor(offset / bitmap.unit); index <= last;) {
    const bit = index & 31;
    const bits = Math.min(32 - bit, last - index + 1);
    visit(index >>> 5, bits === 32 ? -1 : ((1 << bits) - 1) << bit);
    index += bits;
  }
}
