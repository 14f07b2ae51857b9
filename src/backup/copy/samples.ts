/**
 * A sample of units whose hashes are kept while they are sent. They are read back from the target and compared after
 * the last flush. The units are chosen before the copy: the first and the last used ones, where superblocks are, and an
 * even spread in between.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { fingerprintSize, fingerprintUnit } from '../../tracking/fingerprints.ts';
import { wholeUnits } from '../../tracking/bitmap-units.ts';

/** Units sampled per device, at most: 8 MiB are read back. */
export const maximumSamples = 128;

export class Samples {
  readonly buffer: SharedArrayBuffer;
  readonly #count: Int32Array;
  readonly #units: Float64Array;
  readonly #hashes: Uint8Array;

  constructor(buffer?: SharedArrayBuffer) {
    this.buffer = buffer ?? new SharedArrayBuffer(8 + maximumSamples * (8 + fingerprintSize));
    this.#count = new Int32Array(this.buffer, 0, 1);
    this.#units = new Float64Array(this.buffer, 8, maximumSamples);
    this.#hashes = new Uint8Array(this.buffer, 8 + maximumSamples * 8);
  }

  get count(): number {
    return this.#count[0] ?? 0;
  }

  /** Chooses from the used units. Forgets all hashes. */
  choose(used: Bitmap): void {
    const total = totalUnits(used);
    const wanted = Math.min(total, maximumSamples);
    const units: number[] = [];
    let rank = 0;
    for (const { offset, length } of wholeUnits(used)) {
      const inExtent = Math.ceil(length / fingerprintUnit);
      // Sample number s has rank s * (total - 1) / (wanted - 1), so both ends are included.
      while (units.length < wanted) {
        const at = wanted === 1 ? 0 : Math.round((units.length * (total - 1)) / (wanted - 1));
        if (at >= rank + inExtent) break;
        units.push(offset / fingerprintUnit + at - rank);
      }
      rank += inExtent;
    }
    this.#units.set(units);
    this.#count[0] = units.length;
    this.#hashes.fill(0);
  }

  /** Calls `visit` with the index of each sample whose unit is in `[firstUnit, endUnit)`. */
  within(firstUnit: number, endUnit: number, visit: (sample: number, unit: number) => void): void {
    const { count } = this;
    let low = 0;
    let high = count;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#units[middle] ?? 0) < firstUnit) low = middle + 1;
      else high = middle;
    }
    for (; low < count; low++) {
      const unit = this.#units[low] ?? 0;
      if (unit >= endUnit) return;
      visit(low, unit);
    }
  }

  record(sample: number, hash: Uint8Array): void {
    this.#hashes.set(hash, sample * fingerprintSize);
  }

  forget(sample: number): void {
    this.#hashes.fill(0, sample * fingerprintSize, (sample + 1) * fingerprintSize);
  }

  /** Returns unit and hash. The hash is undefined if the unit has not been sent. */
  get(sample: number): { unit: number; hash: Uint8Array | undefined } {
    const hash = this.#hashes.slice(sample * fingerprintSize, (sample + 1) * fingerprintSize);
    return { unit: this.#units[sample] ?? 0, hash: hash.some((byte) => byte !== 0) ? hash : undefined };
  }
}

function totalUnits(set: Bitmap): number {
  let total = 0;
  for (const { length } of wholeUnits(set)) total += Math.ceil(length / fingerprintUnit);
  return total;
}
