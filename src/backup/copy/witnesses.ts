/**
 * Witnesses: some of the ranges that this job has sent, each with the hash of its bytes as they were sent. After a
 * reconnect they show whether the server still has this job's image, or an older copy of it. A copy that is older by
 * one flush differs only in what was sent for that flush, so the last flush has witnesses of its own.
 *
 * The hash is of what was sent and not the unit's fingerprint: a live device may have been written between the take
 * and the read, and the fingerprint of a unit that was sent in part is then not of what the target holds.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { type UnitHasher, fingerprintUnit } from '../../tracking/fingerprints.ts';

export interface Witness {
  /** Bytes; a multiple of the target's block. */
  readonly offset: number;
  /** Bytes, at most a fingerprint unit. */
  readonly length: number;
  /** Of these bytes; `zeros`: they are zeros; `recorded`: what the fingerprint file says of this unit. */
  readonly hash: Uint8Array | 'zeros' | 'recorded';
}

/** Most witnesses of one flush, over all threads. */
export const witnessesPerFlush = 128;

/** Most witnesses of earlier flushes. */
const mostEarlier = 192;

/** Chooses `most` of a stream of unknown length, each item with the same chance (Vitter's algorithm R). */
class Reservoir<Item> {
  items: Item[] = [];
  readonly #most: number;
  #seen = 0;

  constructor(most: number) {
    this.#most = most;
  }

  /** `make` is called only for an item that is chosen. */
  offer(make: () => Item): void {
    this.#seen++;
    if (this.items.length < this.#most) {
      this.items.push(make());
      return;
    }
    const place = Math.floor(Math.random() * this.#seen);
    if (place < this.#most) this.items[place] = make();
  }
}

/** In a copying thread: chooses witnesses among what it sends. */
export class WitnessTaker {
  readonly #hasher: UnitHasher;
  readonly #most: number;
  #chosen: Reservoir<Witness>;

  constructor(hasher: UnitHasher, threads: number) {
    this.#hasher = hasher;
    this.#most = Math.max(1, Math.floor(witnessesPerFlush / threads));
    this.#chosen = new Reservoir(this.#most);
  }

  /** `data` goes to `offset`. */
  sends(offset: number, data: Buffer): void {
    this.#chosen.offer(() => {
      const { from, length } = somePart(data.length);
      const hash = Uint8Array.from(this.#hasher.hash(data.subarray(from, from + length)));
      return { offset: offset + from, length, hash };
    });
  }

  /** The range reads as zeros at the target from now on. */
  zeroes(offset: number, length: number): void {
    this.#chosen.offer(() => {
      const part = somePart(length);
      return { offset: offset + part.from, length: part.length, hash: 'zeros' };
    });
  }

  /** The witnesses chosen since the last call. */
  take(): Witness[] {
    const { items } = this.#chosen;
    this.#chosen = new Reservoir(this.#most);
    return items;
  }
}

function somePart(length: number): { from: number; length: number } {
  const from = Math.floor(Math.random() * Math.ceil(length / fingerprintUnit)) * fingerprintUnit;
  return { from, length: Math.min(fingerprintUnit, length - from) };
}

/** In the coordinator: the witnesses that a flush has confirmed and that nothing has overwritten since. */
export class Witnesses {
  #last: Witness[] = [];
  readonly #earlier = new Reservoir<Witness>(mostEarlier);

  get all(): readonly Witness[] {
    return [...this.#last, ...this.#earlier.items];
  }

  /** Adds the witnesses of what a flush has just confirmed. They may not overlap each other or be false. */
  confirm(taken: readonly Witness[]): void {
    const sorted = withoutOverlaps([...taken].sort((a, b) => a.offset - b.offset));
    if (sorted.length === 0) return;
    const stays = (witness: Witness): boolean => !sorted.some((other) => overlap(witness, other));
    this.#earlier.items = this.#earlier.items.filter(stays);
    for (const witness of this.#last.filter(stays)) this.#earlier.offer(() => witness);
    this.#last = sorted;
  }

  /** To be called before these blocks are overwritten. */
  forget(set: Bitmap): void {
    const stays = ({ offset, length }: Witness): boolean =>
      set.extents(offset, offset + length).next().done === true;
    this.#last = this.#last.filter(stays);
    this.#earlier.items = this.#earlier.items.filter(stays);
  }
}

function overlap(a: Witness, b: Witness): boolean {
  return a.offset < b.offset + b.length && b.offset < a.offset + a.length;
}

/** Of overlapping witnesses it is not known which was sent last: neither is kept. */
function withoutOverlaps(sorted: readonly Witness[]): Witness[] {
  return sorted.filter((witness, i) => {
    const [before, next] = [sorted[i - 1], sorted[i + 1]];
    return (
      (before === undefined || !overlap(before, witness)) && (next === undefined || !overlap(witness, next))
    );
  });
}
