/**
 * Reads the trace of one disk. A drain begins with a message that must come back as a record. The record proves that
 * the trace still runs. After the drain, everything up to its time has been read.
 *
 * Each stream is read on its own processor. The kernel makes room for a record first and then fills it, with interrupts
 * off. So only on that processor a record is never read half-filled.
 */
import { freshUuid } from '../../base/random.ts';
import type { Follower } from './follower.ts';
import { category, note, RecordParser, TraceFormatError, type TraceRecord } from './trace-record.ts';
import type { RelayFiles } from './relay-files.ts';

/** Why writes may have been missed. The message is the reason of the ended epoch. */
export class TraceLost extends Error {}

export class DiskReader {
  readonly files: RelayFiles;
  readonly follower: Follower;
  readonly #name: string;
  readonly #parsers = new Map<number, { parser: RecordParser; last: number }>();
  readonly #mark = freshUuid();
  #beats = 0;
  #expected = '';
  /** Nanoseconds; undefined until the expected message has come. */
  #beat: number | undefined;
  #started = false;

  constructor(name: string, files: RelayFiles, follower: Follower) {
    this.#name = name;
    this.files = files;
    this.follower = follower;
  }

  /** Opens the streams of processors that came online. Throws TraceLost, as all methods of this class do. */
  openNew(): void {
    this.#guarded(() => this.files.openNew());
  }

  /** Sends the message. Call it on the processor whose stream is read first. */
  beat(): void {
    this.#beats++;
    this.#expected = `${this.#mark} ${this.#beats}`;
    this.#beat = undefined;
    this.#guarded(() => this.files.message(this.#expected));
  }

  /** Reads the stream of a processor to its end. Returns the number of bytes. Throws TraceLost. */
  read(processor: number, into: Buffer): number {
    let state = this.#parsers.get(processor);
    if (state === undefined) {
      const fresh = {
        parser: new RecordParser((record, data) => (fresh.last = this.#take(record, data))),
        last: 0,
      };
      this.#parsers.set(processor, fresh);
      state = fresh;
    }
    let total = 0;
    // One empty read does not prove that the stream is empty: the buffer may just have been changing to its next part.
    for (let empty = 0; empty < 2;) {
      const bytes = this.#guarded(() => this.files.read(processor, into));
      empty = bytes === 0 ? empty + 1 : 0;
      total += bytes;
      this.#guarded(() => state.parser.feed(into.subarray(0, bytes)));
      if (this.#beat !== undefined && state.last > this.#beat) break;
    }
    return total;
  }

  /**
   * Ends a drain: all streams have been read since the message was sent. Returns the time up to which all writes are
   * known, in nanoseconds. Throws TraceLost.
   */
  finish(): number {
    // Checked first, because a full buffer has no room for the message either.
    const dropped = this.#guarded(() => this.files.dropped());
    if (dropped > 0)
      throw new TraceLost(
        `the kernel dropped ${dropped} records of the writes to ${this.#name}: its buffers were full`,
      );
    if (this.#beat === undefined)
      throw new TraceLost(`the trace of ${this.#name} does not run any more: another process stopped it`);
    if (this.follower.passthroughWrites > 0)
      throw new TraceLost(
        `${this.follower.passthroughWrites} commands went to ${this.#name} past the block layer (SCSI or NVMe passthrough)`,
      );
    this.follower.advance(this.#beat);
    return this.#beat;
  }

  #take(record: TraceRecord, data: Uint8Array): number {
    if ((record.categories & category.notify) === 0) {
      this.follower.record(record);
    } else if (record.action === note.timestamp) {
      if (this.#started)
        throw new TraceLost(`the trace of ${this.#name} was stopped and started again by another process`);
      this.#started = true;
    } else if (record.action === note.message && Buffer.from(data).toString('latin1') === this.#expected) {
      this.#beat = record.time;
    }
    return record.time;
  }

  #guarded<Result>(work: () => Result): Result {
    try {
      return work();
    } catch (thrown) {
      if (thrown instanceof TraceLost) throw thrown;
      const message = thrown instanceof Error ? thrown.message : String(thrown);
      if (thrown instanceof TraceFormatError) throw new TraceLost(`${message} (${this.#name})`);
      throw new TraceLost(
        `the trace of ${this.#name} can no longer be read (${message}): it was removed, or the device is gone`,
      );
    }
  }
}
