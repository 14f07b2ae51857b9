/**
 * Witnesses: some of the ranges that this job has sent, each with the hash of its bytes as they were sent. After a
 * reconnect they show whether the server still has this job's image, or an older copy of it. A copy that is older by
 * one flush differs only in the data of that flush, so the last flush has witnesses of its own.
 *
 * The hash covers the bytes that were sent. It is not the unit's fingerprint. A live device may have been written
 * between the take and the read. If only part of the unit was sent, its fingerprint does not match the target.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { type UnitHasher, fingerprintUnit } from '../../tracking/fingerprints.ts';

export interface Witness {
  /** Bytes; a multiple of the target's block. */
  readonly offset: number;
  /** Bytes, at most a fingerprint unit. */
  readonly length: number;
  /** Hash of these bytes. `zeros`: they are zeros. `recorded`: the hash is in the fingerprint file. */
  readonly hash: Uint8Array | 'zeros' | 'recorded';
}

/** Witnesses of one flush, over all threads, at most. */
export const witnessesPerFlush = 128;

/** Witnesses of earlier flushes, at most. */
const mostEarlier = 192;

/** Chooses `most` items of a stream of unknown length, each with the same chance (Vitter's algorithm R). */
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

/** Chooses witnesses from the data that a copying thread sends. */
export class WitnessTaker {
  readonly #hasher: UnitHasher;
  readonly #most: number;
  #chosen: Reservoir<Witness>;

  constructor(hasher: UnitHasher, threads: number) {
    this.#hasher = hasher;
    this.#most = Math.max(1, Math.floor(witnessesPerFlush / threads));
    this.#chosen = new Reservoir(this.#most);
  }

  /** Notes that `data` is sent to `offset`. */
  sends(offset: number, data: Buffer): void {
    this.#chosen.offer(() => {
      const { from, length } = somePart(data.length);
      const hash = Uint8Array.from(this.#hasher.hash(data.subarray(from, from + length)));
      return { offset: offset + from, length, hash };
    });
  }

  /** Notes that the range reads as zeros at the target from now on. */
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

/** The coordinator's witnesses: those that a flush has confirmed and that no later write has overwritten. */
export class Witnesses {
  #last: Witness[] = [];
  readonly #earlier = new Reservoir<Witness>(mostEarlier);

  get all(): readonly Witness[] {
    return [...this.#last, ...this.#earlier.items];
  }

  /** Adds the witnesses that a flush has just confirmed. Overlapping ones are dropped. */
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

/** Drops all witnesses that overlap, since it is not known which was sent last. */
function withoutOverlaps(sorted: readonly Witness[]): Witness[] {
  return sorted.filter((witness, i) => {
    const [before, next] = [sorted[i - 1], sorted[i + 1]];
    return (
      (before === undefined || !overlap(before, witness)) && (next === undefined || !overlap(witness, next))
    );
  });
}
