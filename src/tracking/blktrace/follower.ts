/**
 * What the records of a disk mean for the devices on it: which units of which dirty map they mark. The rules
 * and why they lose nothing are in docs/formats/tracking-blktrace.md.
 *
 * Completions of requests mark at once. Where a completion does not tell all that was written, the queue event
 * is followed too, and the two are brought into the order of time first, since each processor has a stream of
 * its own.
 */
import { InFlight } from './in-flight.ts';
import type { Marks } from './marks.ts';
import { action, category, type TraceRecord } from './record.ts';

/**
 * - `requests`: completions are exact.
 * - `requests-discards`: they are, but for discards: one request may carry several that do not touch
 *   (queue/max_discard_segments above 1).
 * - `bios`: stacked and other bio-based devices; a completion may tell the last part only, or never come.
 */
export type Following = 'requests' | 'requests-discards' | 'bios';

/** The mask of the trace: as few records as it takes, and messages for the heartbeat. */
export const masks: Readonly<Record<Following, number>> = {
  requests: category.complete | category.notify,
  'requests-discards': category.complete | category.discard | category.notify,
  // All events of writes and none of reads. On a bio-based device that is two records a write.
  bios: category.write | category.notify,
};

interface Tracked {
  readonly marks: Marks;
  /** Bytes from the start of the disk. */
  readonly start: number;
  readonly inFlight: InFlight;
}

/** A record that waits for its turn: [nanoseconds, first byte, end, action, discard]. */
type Event = readonly [time: number, start: number, end: number, action: number, discard: boolean];

const sector = 512;

export class Follower {
  readonly #following: Following;
  readonly #tracked = new Map<string, Tracked>();
  #waiting: Event[] = [];
  #passthrough = 0;

  constructor(following: Following) {
    this.#following = following;
  }

  /** Commands that bypassed the block layer and may have written anywhere. */
  get passthroughWrites(): number {
    return this.#passthrough;
  }

  add(key: string, start: number, marks: Marks): void {
    this.#tracked.set(key, { marks, start, inFlight: new InFlight(marks.size, marks.unit) });
  }

  remove(key: string): void {
    this.#tracked.delete(key);
  }

  get keys(): string[] {
    return [...this.#tracked.keys()];
  }

  /** Bytes that following costs beside the maps. */
  memory(key: string): number {
    return this.#tracked.get(key)?.inFlight.memory ?? 0;
  }

  /** Takes in a record that is no note, in the order of its processor's stream. */
  record({ time, sector: first, bytes, action: what, categories }: TraceRecord): void {
    if ((categories & category.write) === 0) return;
    if (what !== action.complete && what !== action.queue) return;
    if ((categories & category.passthrough) !== 0) {
      if (what === action.complete) this.#passthrough++;
      return;
    }
    if (bytes === 0) return;
    const start = first * sector;
    const end = start + bytes;
    const discard = (categories & category.discard) !== 0;
    if (what === action.complete) for (const each of this.#tracked.values()) mark(each, start, end);
    if (this.#following === 'bios' || (discard && this.#following === 'requests-discards'))
      this.#waiting.push([time, start, end, what, discard]);
  }

  /**
   * Everything up to `time` has come: pairs queue events with completions. Later ones wait, since a record of
   * another processor may still belong before them.
   */
  advance(time: number): void {
    if (this.#waiting.length === 0) return;
    const due = this.#waiting.filter((event) => event[0] <= time).sort((a, b) => a[0] - b[0]);
    this.#waiting = this.#waiting.filter((event) => event[0] > time);
    for (const each of this.#tracked.values()) for (const event of due) this.#follow(each, event);
  }

  #follow(tracked: Tracked, [time, start, end, what, discard]: Event): void {
    const from = start - tracked.start;
    const to = end - tracked.start;
    if (to <= 0 || from >= tracked.marks.size) return;
    if (what === action.queue) {
      tracked.inFlight.queued(from, to, time);
      return;
    }
    // Of requests with several discards the end says nothing.
    const whole = discard && this.#following !== 'bios';
    const ended = tracked.inFlight.completed(from, to, whole);
    if (ended !== undefined) tracked.marks.mark(ended.start, ended.end);
  }

  /**
   * Takes the map of a device, with what is under way. `settled`: the device's filesystem is frozen, so what
   * was queued before it has ended, and need not be taken again.
   */
  take(key: string, time: number, settled: boolean): ReturnType<Marks['take']> {
    const tracked = this.#tracked.get(key);
    if (tracked === undefined) throw new Error(`${key} is not followed`);
    const taken = tracked.marks.take(tracked.inFlight.ranges());
    if (settled) tracked.inFlight.settle(time);
    return taken;
  }

  marks(key: string): Marks | undefined {
    return this.#tracked.get(key)?.marks;
  }
}

function mark({ marks, start }: Tracked, from: number, to: number): void {
  if (to > start && from < start + marks.size) marks.mark(from - start, to - start);
}
