/**
 * Runs the jobs of a restore thread. Several jobs run at once (lanes), so that the disk works while chunks are decrypted and
 * decompressed. That takes most of the processor time, so there are several threads.
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { isZero, KiB, MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { alignedBuffer } from '../../linux/aligned.ts';
import { isDataLossError } from '../../vault/data-loss.ts';
import type { ImageReader } from '../image/image-reader.ts';
import type { Destination } from './destination.ts';
import type { Job, JobResult, Lost } from './thread-messages.ts';

/** The most bytes to read, compare and write at once. */
const pieceBytes = MiB;
/** Differences are found in units of this size, and written in runs of units. */
const compareUnit = 16 * KiB;

interface Lane {
  readonly image: Buffer;
  readonly other: Buffer;
}

type JobOf<Name extends Job['do']> = Extract<Job, { do: Name }>;

export class RestoreThread {
  readonly #image: ImageReader;
  readonly #destination: Destination | undefined;
  readonly #stopped: () => boolean;
  readonly #free: Lane[] = [];

  constructor(image: ImageReader, destination: Destination | undefined, stopped: () => boolean) {
    this.#image = image;
    this.#destination = destination;
    this.#stopped = stopped;
  }

  /** Throws CANCELLED, and the errors of image and destination. */
  async run(job: Job): Promise<JobResult> {
    const lane = this.#free.pop() ?? { image: alignedBuffer(pieceBytes), other: alignedBuffer(pieceBytes) };
    try {
      switch (job.do) {
        case 'copy':
          return await this.#copy(job, lane);
        case 'zero':
          return await this.#zero(job, lane);
        case 'verify':
          return await this.#verify(job, lane);
        case 'read':
          return await this.#read(job, lane);
        case 'write':
          return await this.#write(job, lane);
        case 'flush':
          await this.#to.flush();
          return {};
      }
    } finally {
      this.#free.push(lane);
    }
  }

  get #to(): Destination {
    if (this.#destination === undefined) throw new Error('this thread has no destination');
    return this.#destination;
  }

  async #copy({ offset, length, compare, salvage }: JobOf<'copy'>, lane: Lane): Promise<JobResult> {
    const to = this.#to;
    const hasher = new Blake3Hasher();
    const lost: Lost[] = [];
    let written = 0;
    let equal = 0;
    for (const [at, bytes] of this.#pieces(offset, length)) {
      const data = lane.image.subarray(0, bytes).fill(0);
      await this.#fill(data, at, salvage ? lost : undefined);
      hasher.update(data);
      if (!compare) {
        await to.write(data, at);
        written += bytes;
        continue;
      }
      const there = lane.other.subarray(0, bytes);
      await to.read(there, at);
      for (const [from, end] of differing(data, there, Math.max(compareUnit, to.alignment))) {
        await to.write(data.subarray(from, end), at + from);
        written += end - from;
      }
      equal += bytes;
    }
    equal = compare ? equal - written : 0;
    return { written, equal, lost, digest: hasher.digestBuffer() };
  }

  async #zero({ offset, length, must }: JobOf<'zero'>, lane: Lane): Promise<JobResult> {
    const to = this.#to;
    const aligned =
      offset % to.alignment === 0 && (length % to.alignment === 0 || offset + length === to.size);
    if (aligned && (await to.zeroQuickly(offset, length))) return { zeroed: length };
    if (!must) return { left: length };
    const zeros = lane.image.fill(0);
    let written = 0;
    for (const [at, bytes] of this.#pieces(offset, length)) {
      const there = lane.other.subarray(0, bytes);
      await to.read(there, at);
      if (isZero(there)) continue;
      await to.write(zeros.subarray(0, bytes), at);
      written += bytes;
    }
    const result = { written, equal: length - written };
    if (written === 0) return result;
    const hasher = new Blake3Hasher();
    for (const [, bytes] of this.#pieces(offset, length)) hasher.update(zeros.subarray(0, bytes));
    return { ...result, digest: hasher.digestBuffer() };
  }

  async #verify({ offset, length, digest }: JobOf<'verify'>, lane: Lane): Promise<JobResult> {
    const hasher = new Blake3Hasher();
    for (const [at, bytes] of this.#pieces(offset, length)) {
      const there = lane.other.subarray(0, bytes);
      await this.#to.read(there, at);
      hasher.update(there);
    }
    // The list of written ranges keeps only the first bytes of a digest.
    return { differs: !hasher.digestBuffer().subarray(0, digest.length).equals(digest) };
  }

  async #read({ offset, length }: JobOf<'read'>, lane: Lane): Promise<JobResult> {
    const lost: Lost[] = [];
    for (const [at, bytes] of this.#pieces(offset, length))
      await this.#fill(lane.image.subarray(0, bytes).fill(0), at, lost);
    return { lost };
  }

  async #write({ offset, data }: JobOf<'write'>, lane: Lane): Promise<JobResult> {
    for (const [at, bytes] of this.#pieces(offset, data.length)) {
      lane.image.set(data.subarray(at - offset, at - offset + bytes));
      await this.#to.write(lane.image.subarray(0, bytes), at);
    }
    return { written: data.length };
  }

  /** Reads the image into a buffer of zeros. With `lost`, lost chunks stay zeros and are added there. */
  async #fill(into: Buffer, offset: number, lost: Lost[] | undefined): Promise<void> {
    try {
      await this.#image.readInto(into, offset);
      return;
    } catch (error) {
      if (lost === undefined || !isDataLossError(error)) throw error;
    }
    const { chunkSize } = this.#image;
    into.fill(0);
    const end = offset + into.length;
    for (let at = offset; at < end;) {
      const next = Math.min(end, at - (at % chunkSize) + chunkSize);
      const part = into.subarray(at - offset, next - offset);
      try {
        await this.#image.readInto(part, at);
      } catch (error) {
        if (!isDataLossError(error)) throw error;
        part.fill(0);
        lost.push({ offset: at, length: next - at, reason: error.message });
      }
      at = next;
    }
  }

  *#pieces(offset: number, length: number): Generator<[at: number, bytes: number]> {
    const end = offset + length;
    for (let at = offset; at < end; at += pieceBytes) {
      if (this.#stopped()) throw new AgentError('CANCELLED', 'Cancelled');
      yield [at, Math.min(pieceBytes, end - at)];
    }
  }
}

/** Returns the runs of units that differ. */
function* differing(a: Buffer, b: Buffer, unit: number): Generator<[from: number, end: number]> {
  if (a.equals(b)) return;
  let from = -1;
  for (let at = 0; at < a.length; at += unit) {
    const end = Math.min(a.length, at + unit);
    const same = a.compare(b, at, end, at, end) === 0;
    if (!same && from < 0) from = at;
    if (same && from >= 0) {
      yield [from, at];
      from = -1;
    }
  }
  if (from >= 0) yield [from, a.length];
}
