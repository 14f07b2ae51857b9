/**
 * The content that an image has to have. In all ranges that dumpe2fs or xfs_db call used, these are the bytes
 * of a copy of the device. If there is no filesystem that these programs can read, all bytes count.
 */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { MiB } from '../../src/base/bytes.ts';
import { type Extent, totalLength } from '../../src/base/extents.ts';
import { oracleUsed } from '../helpers/image-proof.ts';
import type { Filesystem } from './disk.ts';

export interface Expected {
  readonly size: number;
  readonly content: Filesystem | 'other';
  readonly ranges: readonly Extent[];
  /** The bytes of the ranges, one after the other. */
  readonly bytes: Buffer;
}

/** Reads the expected content from the copy of a device. */
export async function expectedOf(
  copy: string,
  content: Filesystem | 'other',
  size: number,
): Promise<Expected> {
  const used = await usedOf(copy, content, size);
  const ranges = used ?? [{ offset: 0, length: size }];
  const bytes = Buffer.alloc(totalLength(ranges));
  const file = await open(copy, 'r');
  try {
    let at = 0;
    for (const { offset, length } of ranges) {
      // A sparse copy may end before the device.
      await file.read(bytes, at, length, offset);
      at += length;
    }
  } finally {
    await file.close();
  }
  return { size, content: used === undefined ? 'other' : content, ranges, bytes };
}

async function usedOf(
  copy: string,
  content: Filesystem | 'other',
  size: number,
): Promise<Extent[] | undefined> {
  if (content === 'other') return undefined;
  try {
    const used = await oracleUsed(content, copy, size);
    return totalLength(used) > 0 ? used : undefined;
  } catch {
    // Raw writes have damaged its metadata.
    return undefined;
  }
}

/**
 * Returns undefined if the image has the expected content, otherwise the place and number of bytes of the
 * first differences.
 */
export async function differenceOf(expected: Expected, image: string): Promise<string | undefined> {
  const file = await open(image, 'r');
  try {
    const { size } = await file.stat();
    if (size < expected.size) return `the image has ${size} bytes, the device ${expected.size}`;
    const places: number[] = [];
    let blocks = 0;
    let at = 0;
    for (const { offset, length } of expected.ranges)
      for (let done = 0; done < length;) {
        const count = Math.min(MiB, length - done);
        const part = Buffer.alloc(count);
        await file.read(part, 0, count, offset + done);
        const wanted = expected.bytes.subarray(at, at + count);
        if (!part.equals(wanted))
          for (let block = 0; block < count; block += 4096)
            if (!part.subarray(block, block + 4096).equals(wanted.subarray(block, block + 4096))) {
              blocks++;
              if (places.length < 5) places.push(offset + done + block);
            }
        at += count;
        done += count;
      }
    assert.equal(at, expected.bytes.length);
    return blocks === 0 ? undefined : `${blocks} used blocks differ, the first at ${places.join(', ')}`;
  } finally {
    await file.close();
  }
}
