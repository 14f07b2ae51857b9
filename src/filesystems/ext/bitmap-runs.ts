/**
 * Converts an allocation bitmap to runs of used bits, a word at a time. Whole words of ones or zeros cost one
 * comparison, so an ordinary bitmap is read at the speed of memory. Bit 0 of byte 0 comes first.
 */

/**
 * Calls `run(from, to)` for each maximal run of set bits among the first `bits`, `to` excluded. Returns the
 * number of clear bits.
 */
export function usedRuns(bitmap: Uint8Array, bits: number, run: (from: number, to: number) => void): number {
  const words = asWords(bitmap, bits);
  const whole = bits >>> 5;
  let open = -1;
  let used = 0;
  const close = (at: number): void => {
    used += at - open;
    run(open, at);
    open = -1;
  };

  const mixed = (word: number, base: number, count: number): void => {
    for (let bit = 0; bit < count;) {
      const rest = (open < 0 ? word : ~word) >>> bit;
      if (rest === 0) return;
      bit += 31 - Math.clz32(rest & -rest);
      if (bit >= count) return;
      if (open < 0) open = base + bit;
      else close(base + bit);
    }
  };

  for (let i = 0; i < whole; i++) {
    const word = words[i]!;
    if (word === 0) {
      if (open >= 0) close(i * 32);
    } else if (word !== -1) {
      mixed(word, i * 32, 32);
    } else if (open < 0) {
      open = i * 32;
    }
  }
  if (bits & 31) mixed(words[whole]!, whole * 32, bits & 31);
  if (open >= 0) close(bits);
  return bits - used;
}

/**
 * Returns the bytes as 32-bit words. This machine is little-endian, as are all that Node 24 runs on. Bytes that are not
 * aligned are copied.
 */
function asWords(bitmap: Uint8Array, bits: number): Int32Array {
  const count = Math.ceil(bits / 32);
  if (bitmap.byteOffset % 4 === 0 && bitmap.byteLength >= count * 4)
    return new Int32Array(bitmap.buffer, bitmap.byteOffset, count);
  const copy = new Int32Array(count);
  new Uint8Array(copy.buffer).set(bitmap.subarray(0, count * 4));
  return copy;
}
