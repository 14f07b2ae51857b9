/**
 * The records of blktrace as the kernel writes them into its relay buffers, one stream for each processor. A record is
 * `struct blk_io_trace` of include/uapi/linux/blktrace_api.h, 48 bytes in the machine's byte order, followed by
 * `pdu_len` bytes that depend on the action. A read may end anywhere within a record. The parser keeps the beginning
 * until the rest comes.
 */

/** Categories (`enum blktrace_cat`): the mask of a trace, and the upper half of a record's action. */
export const category = {
  write: 1 << 1,
  queue: 1 << 4,
  complete: 1 << 7,
  passthrough: 1 << 9,
  notify: 1 << 10,
  discard: 1 << 13,
} as const;

/** Actions (`enum blktrace_act`, `enum blktrace_notify`): the lower half, without the bit of cgroups. */
export const action = { queue: 1, complete: 8 } as const;
export const note = { process: 0, timestamp: 1, message: 2 } as const;

/** `__BLK_TA_CGROUP`: the data after the record begins with the 8 bytes of a cgroup's ID. */
const cgroupBit = 0x100;

const recordBytes = 48;
/** `BLK_IO_TRACE_MAGIC`, the version in the lowest byte. */
const magic = 0x65617407;
const magicSwapped = 0x07746165;

/** The fields of a record that the tracker reads. One object is reused for all records. */
export interface TraceRecord {
  /** Nanoseconds of the monotonic clock. Exact up to 104 days after boot, and to 2 ns for as long again. */
  time: number;
  /** In units of 512 bytes, from the start of the disk. */
  sector: number;
  bytes: number;
  /** Without the bit of cgroups. */
  action: number;
  /** Bits of `category`. */
  categories: number;
}

/** A stream that does not hold valid records. The records after the damage are lost. */
export class TraceFormatError extends Error {}

/** Reads the stream of one processor. Do not use it again after it threw. */
export class RecordParser {
  readonly #record: TraceRecord = { time: 0, sector: 0, bytes: 0, action: 0, categories: 0 };
  readonly #onRecord: (record: TraceRecord, data: Uint8Array) => void;
  #kept: Buffer = Buffer.alloc(0);
  #time = 0;

  /** `onRecord` gets each record with the data after it. Both are valid only during the call. */
  constructor(onRecord: (record: TraceRecord, data: Uint8Array) => void) {
    this.#onRecord = onRecord;
  }

  /** Bytes of a record whose end has not come yet. */
  get pending(): number {
    return this.#kept.length;
  }

  /** Throws TraceFormatError. */
  feed(bytes: Buffer): void {
    let from = bytes;
    if (this.#kept.length > 0) from = Buffer.concat([this.#kept, bytes]);
    let at = 0;
    while (from.length - at >= recordBytes) {
      this.#checkMagic(from.readUInt32LE(at));
      const end = at + recordBytes + from.readUInt16LE(at + 46);
      if (end > from.length) break;
      this.#read(from, at, end);
      at = end;
    }
    this.#kept = at === from.length ? nothing : Buffer.from(from.subarray(at));
  }

  #checkMagic(found: number): void {
    if (found === magic) return;
    if (found === magicSwapped)
      throw new TraceFormatError('the trace is in the byte order of another machine');
    if (found >>> 8 === magic >>> 8)
      throw new TraceFormatError(`the trace has version ${found & 0xff}, not ${magic & 0xff}`);
    throw new TraceFormatError(`the trace has 0x${found.toString(16)} where a record should begin`);
  }

  #read(from: Buffer, at: number, end: number): void {
    const record = this.#record;
    record.time = from.readUInt32LE(at + 8) + from.readUInt32LE(at + 12) * 2 ** 32;
    // Each processor writes in the order of time. An older time means that the bytes are earlier content of the buffer.
    if (record.time < this.#time)
      throw new TraceFormatError('the trace holds a record that is older than the one before');
    this.#time = record.time;
    record.sector = from.readUInt32LE(at + 16) + from.readUInt32LE(at + 20) * 2 ** 32;
    record.bytes = from.readUInt32LE(at + 24);
    const low = from.readUInt16LE(at + 28);
    record.action = low & ~cgroupBit;
    record.categories = from.readUInt16LE(at + 30);
    const data = at + recordBytes + ((low & cgroupBit) === 0 ? 0 : 8);
    this.#onRecord(record, from.subarray(Math.min(data, end), end));
  }
}

const nothing = Buffer.alloc(0);
