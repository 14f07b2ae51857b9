/**
 * The writes under way, for devices whose completions do not report all that was written
 * (docs/formats/tracking-blktrace.md). A write is known from its queue event on. Its completion is recognised only if
 * it cannot belong to another write. A write that is never recognised stays under way until a freeze proves that it has
 * ended: it is copied again, and nothing is lost.
 *
 * Positions are in bytes from the start of the tracked device. A write may reach over the ends of the device (it was
 * sent to the whole disk), so positions may be negative. Units are those inside the device.
 */
import { SparseBitmap } from './sparse-bitmap.ts';

interface Write {
  readonly start: number;
  readonly end: number;
  /** Nanoseconds. */
  readonly queued: number;
}

/** Units whose writes cannot be told apart, from a time span of at most `settleTime`. */
interface Doubt {
  /** Nanoseconds. */
  readonly first: number;
  last: number;
  readonly units: SparseBitmap;
}

/** The most writes that are known one by one. */
const mostWrites = 65_536;
/** An estimate of the memory that one write costs in JavaScript. */
const bytesPerWrite = 120;
const mostDoubts = 3;

/**
 * Age in nanoseconds from which a write that was not seen to end counts as ended after a freeze. All writes of the
 * frozen filesystem have ended. The time is for other writes, which go to the device without the filesystem.
 */
export const settleTime = 30e9;

export class InFlight {
  readonly #size: number;
  readonly #unit: number;
  /**
   * Writes by their end, in the order of queueing. No two of them share a unit. A write that touches `#unsure` stays.
   */
  readonly #writes = new Map<number, Write>();
  /** The units of `#writes`. */
  readonly #flying = new SparseBitmap();
  /**
   * Units that more than one write touched at once: no completion of these writes is recognised. Sorted by the time of
   * doubt, the oldest first.
   */
  readonly #unsure: Doubt[] = [];

  constructor(size: number, unit: number) {
    this.#size = size;
    this.#unit = unit;
  }

  get memory(): number {
    let bytes = this.#writes.size * bytesPerWrite + this.#flying.memory;
    for (const { units } of this.#unsure) bytes += units.memory;
    return bytes;
  }

  /** Adds a write of `[start, end)` that was queued at `time`. Times never go back. */
  queued(start: number, end: number, time: number): void {
    const [first, last] = this.#units(start, end);
    if (first >= last) return;
    if (this.#flying.touches(first, last) || this.#isUnsure(first, last)) {
      this.#doubt(first, last, time);
      return;
    }
    this.#flying.add(first, last);
    this.#writes.set(end, { start, end, queued: time });
    if (this.#writes.size <= mostWrites) return;
    const [oldest] = this.#writes.values();
    this.#forget(oldest!);
    this.#doubt(...this.#units(oldest!.start, oldest!.end), time);
  }

  /**
   * Handles a completion of `[start, end)`. Returns the whole write that it ended, or undefined. A split write
   * completes with its last piece, so the end decides. `whole`: set if a completion covers its whole write.
   */
  completed(start: number, end: number, whole: boolean): { start: number; end: number } | undefined {
    const write = this.#writes.get(end);
    if (write === undefined || start < write.start || (whole && start > write.start)) return undefined;
    // Another write overlapped it, so the completion may belong to that write.
    if (this.#isUnsure(...this.#units(write.start, write.end))) return undefined;
    this.#forget(write);
    return write;
  }

  /** Every unit under way, as byte ranges within the device. */
  *ranges(): Generator<[offset: number, length: number]> {
    for (const set of [this.#flying, ...this.#unsure.map(({ units }) => units)])
      for (const [first, end] of set.runs()) yield [first * this.#unit, (end - first) * this.#unit];
  }

  /** Called at `time` with the filesystem frozen: writes that were queued long enough before have ended. */
  settle(time: number): void {
    const limit = time - settleTime;
    for (const write of this.#writes.values()) {
      if (write.queued > limit) break;
      this.#forget(write);
    }
    while (this.#unsure[0] !== undefined && this.#unsure[0].last <= limit) this.#unsure.shift();
  }

  #isUnsure(first: number, last: number): boolean {
    return this.#unsure.some(({ units }) => units.touches(first, last));
  }

  #doubt(first: number, last: number, time: number): void {
    let newest = this.#unsure.at(-1);
    if (newest === undefined || time - newest.first >= settleTime) {
      newest = { first: time, last: time, units: new SparseBitmap() };
      this.#unsure.push(newest);
      if (this.#unsure.length > mostDoubts) {
        const [oldest, next] = [this.#unsure.shift()!, this.#unsure[0]!];
        next.units.addAll(oldest.units);
      }
    }
    newest.units.add(first, last);
    newest.last = time;
  }

  #forget(write: Write): void {
    this.#writes.delete(write.end);
    this.#flying.remove(...this.#units(write.start, write.end));
  }

  #units(start: number, end: number): [first: number, end: number] {
    return [Math.floor(Math.max(start, 0) / this.#unit), Math.ceil(Math.min(end, this.#size) / this.#unit)];
  }
}
