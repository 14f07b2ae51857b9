/**
 * Reads what an image holds and nothing else: every chunk is fetched, opened, and its name computed again. All of it, or a
 * sample that is spread over the device: as many places as the share asks for, one at random in each stretch.
 */
import { randomInt } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { MiB } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import type { ImageReader } from '../image/image-reader.ts';
import { type ImageSpec, openImage } from '../image/open-image.ts';
import type { Job, Lost } from '../target/messages.ts';
import { ThreadPool } from '../target/pool.ts';

export interface VerifyReadOptions {
  readonly image: ImageSpec;
  /** Share of what is to be read, above 0 and up to 1. Default 1. */
  readonly sample?: number;
  readonly threads?: number;
  readonly signal?: AbortSignal | undefined;
  /** Bytes read, and of how many. */
  readonly onProgress?: (done: number, total: number) => void;
}

export interface VerifiedRead {
  /** Bytes that the image holds, and that were read. */
  readonly held: number;
  readonly read: number;
  readonly lost: readonly Lost[];
}

/** Bytes that are read in one go. */
const step = 8 * MiB;

/** What is lost is in the result. Throws what the vault throws otherwise, and CANCELLED. */
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
 * The units of the extents (sorted, beginning at multiples of `unit`), or of each `1/share` of them one, chosen by
 * `random` (a whole number below its argument), the first stretch included.
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
