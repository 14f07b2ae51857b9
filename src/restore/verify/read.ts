/**
 * Reads the data of an image, without a destination: fetches, decrypts and decompresses each chunk, and checks it against
 * its name. Reads all chunks, or a random sample that is spread evenly over the device.
 */
import { randomInt } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { MiB } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import type { ImageReader } from '../image/image-reader.ts';
import { type ImageSpec, openImage } from '../image/open-image.ts';
import type { Job, Lost } from '../target/thread-messages.ts';
import { ThreadPool } from '../target/pool.ts';

export interface VerifyReadOptions {
  readonly image: ImageSpec;
  /** The share of the data to read, above 0 and up to 1. Default 1. */
  readonly sample?: number;
  readonly threads?: number;
  readonly signal?: AbortSignal | undefined;
  /** Called with the bytes read so far and the total. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface VerifiedRead {
  /** Bytes of data in the image, and bytes that were read. */
  readonly held: number;
  readonly read: number;
  readonly lost: readonly Lost[];
}

/** Bytes of one read. */
const step = 8 * MiB;

/** Returns lost ranges in the result. Throws CANCELLED, and the other errors of the vault. */
export async function verifyRead(options: VerifyReadOptions): Promise<VerifiedRead> {
  const { image: spec, sample = 1, signal } = options;
  const image = await openImage(spec, { signal });
  try {
    const unit = sample < 1 ? image.chunkSize : step;
    let held = 0;
    for await (const { length } of image.extents()) held += length;
    const total = Math.min(held, Math.ceil(held * sample));
    const pool = await ThreadPool.start({
      image: spec,
      destination: undefined,
      threads: options.threads ?? Math.min(4, Math.max(2, availableParallelism())),
      lanes: sample < 1 ? 8 : 3,
      cacheBytes: 12 * MiB,
      signal,
    });
    const lost: Lost[] = [];
    let read = 0;
    try {
      await pool.run(sampled(image, unit, sample), (job, result) => {
        read += job.length;
        lost.push(...(result.lost ?? []));
        options.onProgress?.(read, total);
      });
    } finally {
      await pool.close();
    }
    return { held, read, lost: lost.sort((a, b) => a.offset - b.offset) };
  } finally {
    await image.close();
  }
}

async function* sampled(
  image: ImageReader,
  unit: number,
  share: number,
): AsyncGenerator<Extract<Job, { do: 'read' }>> {
  for await (const { offset, length } of sampleOf(image.extents(), unit, share, (below) => randomInt(below)))
    yield { do: 'read', offset, length };
}

/**
 * Returns one unit of every `1/share` units of the extents; all units if `share` is 1. The extents are sorted and begin at
 * multiples of `unit`. `random` returns a whole number below its argument and chooses the unit.
 */
export async function* sampleOf(
  extents: AsyncIterable<Extent>,
  unit: number,
  share: number,
  random: (below: number) => number,
): AsyncGenerator<Extent> {
  let seen = 0;
  let stretch = -1;
  let chosen = 0;
  for await (const { offset, length } of extents)
    for (let at = offset; at < offset + length; at += unit, seen++) {
      const now = Math.floor(seen * share);
      if (now !== stretch) {
        stretch = now;
        const first = seen;
        const next = Math.ceil((now + 1) / share);
        chosen = share >= 1 ? first : first + random(Math.max(1, next - first));
      }
      if (share >= 1 || seen === chosen) yield { offset: at, length: Math.min(unit, offset + length - at) };
    }
}
