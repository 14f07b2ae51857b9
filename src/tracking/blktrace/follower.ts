/**
 * Turns the records of a disk into marks in the dirty maps of the devices on it. The rules, and why they lose nothing,
 * are in docs/formats/tracking-blktrace.md.
 *
 * Completions of requests mark at once. If completions do not report all that was written, the queue events are
 * followed too. The two are first sorted by time, because each processor has its own stream.
 */
import { InFlight } from './in-flight.ts';
import type { DirtyMap } from './dirty-map.ts';
import { action, category, type TraceRecord } from './trace-record.ts';

/**
 * The way to follow the writes of a disk:
 * - `requests`: completions are exact.
 * - `requests-discards`: completions are exact, but not for discards. One request may carry several discards that do
 *   not touch (queue/max_discard_segments above 1).
 * - `bios`: stacked and other bio-based devices. A completion may report the last part only, or never come.
 */
export type Following = 'requests' | 'requests-discards' | 'bios';

/** The mask of the trace: only the records that are needed, and messages for the heartbeat. */
export const masks: Readonly<Record<Following, number>> = {
  requests: category.complete | category.notify,
  'requests-discards': category.complete | category.discard | category.notify,
  // All events of writes and none of reads. On a bio-based device that is two records per write.
  bios: category.write | category.notify,
};

interface Tracked {
  readonly dirty: DirtyMap;
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

  add(key: string, start: number, dirty: DirtyMap): void {
    this.#tracked.set(key, { dirty, start, inFlight: new InFlight(dirty.size, dirty.unit) });
  }

  remove(key: string): void {
    this.#tracked.delete(key);
  }

  get keys(): string[] {
    return [...this.#tracked.keys()];
  }

  /** Returns the bytes of memory that following a device costs beside the maps. */
  memory(key: string): number {
    return this.#tracked.get(key)?.inFlight.memory ?? 0;
  }

  /** Handles a record that is not a note. Call it in the order of the processor's stream. */
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
   * Pairs queue events with completions up to `time`: all events up to that time have come. Later ones wait, because a
   * record of another processor may still belong before them.
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
    if (to <= 0 || from >= tracked.dirty.size) return;
    if (what === action.queue) {
      tracked.inFlight.queued(from, to, time);
      return;
    }
    // The completion of a request with several discards does not give their positions.
    const whole = discard && this.#following !== 'bios';
    const ended = tracked.inFlight.completed(from, to, whole);
    if (ended !== undefined) tracked.dirty.mark(ended.start, ended.end);
  }

  /**
   * Takes the map of a device, with the writes under way. `settled`: the device's filesystem is frozen, so writes
   * queued before the freeze have ended, and need not be taken again.
   */
  take(key: string, time: number, settled: boolean): ReturnType<DirtyMap['take']> {
    const tracked = this.#tracked.get(key);
    if (tracked === undefined) throw new Error(`${key} is not followed`);
    const taken = tracked.dirty.take(tracked.inFlight.ranges());
    if (settled) tracked.inFlight.settle(time);
    return taken;
  }

  dirtyMap(key: string): DirtyMap | undefined {
    return this.#tracked.get(key)?.dirty;
  }
}

function mark({ dirty, start }: Tracked, from: number, to: number): void {
  if (to > start && from < start + dirty.size) dirty.mark(from - start, to - start);
}
