/** The content of the golden vaults, computed without the vault's own code. */
import { createHash } from 'node:crypto';
import type { TestImage } from './vault-writer.ts';

export const goldenChunkSize = 4096;
/** 1300 chunks and a half. That gives two levels of pages, and a last chunk that is not whole. */
export const goldenSize = 1300 * goldenChunkSize + 2048;
export const goldenPointNames = ['first', 'second', 'other'] as const;
export type GoldenPoint = (typeof goldenPointNames)[number];

/**
 * Even chunks can be compressed. Odd ones are a linear congruential sequence, which zstd does not compress.
 */
function chunk(content: number, isLast = false): Buffer {
  const data = Buffer.alloc(goldenChunkSize);
  if (content % 2 === 0) data.fill(`golden ${content} `);
  else
    for (let at = 0, state = content; at < data.length; at++) {
      state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
      data[at] = state >>> 24;
    }
  if (isLast) data.fill(0, goldenSize % goldenChunkSize);
  return data;
}

function image(contents: Readonly<Record<number, number>>): TestImage {
  return new Map(
    Object.entries(contents).map(([place, content]) => [Number(place), chunk(content, place === '1300')]),
  );
}

const first = { 0: 1, 1: 2, 2: 3, 3: 4, 10: 5, 11: 6, 500: 7, 501: 8, 1023: 9, 1024: 10, 1100: 11, 1300: 12 };

/**
 * The images by the name of their point. `second` changes three chunks of `first`; `other` is a clone of
 * `first` with one chunk of its own.
 */
export const goldenImages: Readonly<Record<GoldenPoint, TestImage>> = {
  first: image(first),
  second: image({ ...first, 1: 21, 600: 22, 1100: 23 }),
  other: image({ ...first, 1200: 31 }),
};

/** Returns the digest of all bytes of the device. */
export function imageDigest(chunks: TestImage): string {
  const hash = createHash('sha256');
  const zeros = Buffer.alloc(goldenChunkSize);
  for (let at = 0, left = goldenSize; left > 0; at++, left -= goldenChunkSize)
    hash.update((chunks.get(at) ?? zeros).subarray(0, left));
  return hash.digest('hex');
}
