/** A set of units of which few are set: pieces of a bitmap, created when they are first needed. */

const wordsPerPiece = 1024;
const unitsPerPiece = wordsPerPiece * 32;

export class SparseBitmap {
  readonly #pieces = new Map<number, Int32Array>();

  /** Bytes of its pieces. */
  get memory(): number {
    return this.#pieces.size * wordsPerPiece * 4;
  }

  get isEmpty(): boolean {
    return this.#pieces.size === 0;
  }

  /** Sets the units `[first, end)`. */
  add(first: number, end: number): void {
    each(first, end, (piece, word, mask) => {
      let words = this.#pieces.get(piece);
      if (words === undefined) {
        words = new Int32Array(wordsPerPiece);
        this.#pieces.set(piece, words);
      }
      words[word] = words[word]! | mask;
      return true;
    });
  }

  remove(first: number, end: number): void {
    each(first, end, (piece, word, mask) => {
      const words = this.#pieces.get(piece);
      if (words !== undefined) words[word] = words[word]! & ~mask;
      return true;
    });
  }

  /** Returns true if at least one unit of `[first, end)` is set. */
  touches(first: number, end: number): boolean {
    return !each(first, end, (piece, word, mask) => ((this.#pieces.get(piece)?.[word] ?? 0) & mask) === 0);
  }

  addAll(other: SparseBitmap): void {
    for (const [first, end] of other.runs()) this.add(first, end);
  }

  clear(): void {
    this.#pieces.clear();
  }

  /** Yields the set units as ranges `[first, end)`, in no order. */
  *runs(): Generator<[first: number, end: number]> {
    for (const [piece, words] of this.#pieces)
      for (let word = 0; word < wordsPerPiece; word++) {
        const bits = words[word]!;
        const base = piece * unitsPerPiece + word * 32;
        if (bits === -1) yield [base, base + 32];
        else if (bits !== 0)
          for (let bit = 0; bit < 32; bit++)
            if ((bits & (1 << bit)) !== 0) yield [base + bit, base + bit + 1];
      }
  }
}

/** Visits the words of `[first, end)` until `visit` returns false. Returns false if `visit` did. */
function each(
  first: number,
  end: number,
  visit: (piece: number, word: number, mask: number) => boolean,
): boolean {
  for (let index = first; index < end;) {
    const bit = index % 32;
    const bits = Math.min(32 - bit, end - index);
    const mask = bits === 32 ? -1 : ((1 << bits) - 1) << bit;
    const inPiece = index % unitsPerPiece;
    if (!visit(Math.floor(index / unitsPerPiece), Math.floor(inPiece / 32), mask)) return false;
    index += bits;
  }
  return true;
}
