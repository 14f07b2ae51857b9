/**
 * Used maps of image files and devices in tests, and the oracles to compare them with. Offsets are in bytes.
 */
import assert from 'node:assert/strict';
import { open, readFile, rm } from 'node:fs/promises';
import { Bitmap } from '../../src/base/bitmap.ts';
import { clipped, complement, type Extent, merged } from '../../src/base/extents.ts';
import type { ReadAt } from '../../src/block/source.ts';
import { type MarkedMap, markUsed } from '../../src/filesystems/mark-used.ts';
import type { ReadUsedMapOptions } from '../../src/filesystems/read-used-map.ts';
import { exec } from './exec.ts';

export interface OpenImage extends AsyncDisposable {
  readonly size: number;
  readonly readAt: ReadAt;
}

/** Opens an image. Give `size` only if the file does not show it. Use with `await using`. */
export async function openImage(path: string, size?: number): Promise<OpenImage> {
  const file = await open(path, 'r');
  const end = size ?? (await sizeOf(path, (await file.stat()).size));
  return {
    size: end,
    readAt: async (offset, length) => {
      if (offset < 0 || offset + length > end)
        throw new RangeError(`read of ${length} bytes at ${offset} of ${end}`);
      const buffer = Buffer.allocUnsafe(length);
      const { bytesRead } = await file.read(buffer, 0, length, offset);
      if (bytesRead !== length) throw new Error(`short read of ${bytesRead} of ${length} bytes at ${offset}`);
      return buffer;
    },
    [Symbol.asyncDispose]: () => file.close(),
  };
}

async function sizeOf(path: string, fileSize: number): Promise<number> {
  return path.startsWith('/dev/') ? Number((await exec('blockdev', ['--getsize64', path])).stdout) : fileSize;
}

/** Returns all extents of a map. Also checks the guarantees of used-map.ts for them. */
export async function collectExtents(
  batches: AsyncIterable<readonly Extent[]>,
  deviceSize: number,
): Promise<Extent[]> {
  const extents: Extent[] = [];
  let end = 0;
  for await (const batch of batches)
    for (const extent of batch) {
      if (extent.length <= 0 || extent.offset < end || extent.offset + extent.length > deviceSize)
        throw new Error(`extent ${extent.offset}+${extent.length} after ${end} on ${deviceSize} bytes`);
      end = extent.offset + extent.length;
      extents.push(extent);
    }
  return [...merged(extents)];
}

/** Returns the used extents of an ext image by dumpe2fs' lists of free blocks. */
export async function dumpe2fsUsed(path: string, deviceSize: number): Promise<Extent[]> {
  const { stdout } = await exec('dumpe2fs', [path]);
  const blockSize = Number(/^Block size:\s+(\d+)$/m.exec(stdout)?.[1]);
  const blocks = Number(/^Block count:\s+(\d+)$/m.exec(stdout)?.[1]);
  // With bigalloc a single free cluster is printed as its first block.
  const cluster = Number(/^Cluster size:\s+(\d+)$/m.exec(stdout)?.[1] ?? blockSize) / blockSize;
  const free = [...stdout.matchAll(/^ {2}Free blocks: (.*)$/gm)].flatMap(([, list = '']) =>
    list
      .split(', ')
      .filter((text) => text !== '')
      .map((text) => {
        const [from, to] = text.split('-').map(Number);
        const end = Math.ceil(((to ?? from!) + 1) / cluster) * cluster;
        return { offset: from! * blockSize, length: (end - from!) * blockSize };
      }),
  );
  return [...complement(clipped(free, 0, blocks * blockSize), deviceSize)];
}

/** Returns the used extents as partclone (`extfs`, `xfs`, …) sees them, from its ddrescue domain file. */
export async function partcloneUsed(kind: string, path: string): Promise<Extent[]> {
  const domain = `${path}.domain`;
  const log = `${path}.partclone.log`;
  try {
    await exec(`partclone.${kind}`, ['-D', '-q', '-I', '-L', log, '-s', path, '-O', domain]);
    const lines = (await readFile(domain, 'utf8')).matchAll(/^0x([0-9A-F]+)\s+0x([0-9A-F]+)\s+\+$/gm);
    return [...lines].map(([, offset, length]) => ({
      offset: Number.parseInt(offset!, 16),
      length: Number.parseInt(length!, 16),
    }));
  } finally {
    await rm(domain, { force: true });
    await rm(log, { force: true });
  }
}

/** Returns the parts of `extents` that are not in `others`. Both are sorted and disjoint. */
export function without(extents: readonly Extent[], others: readonly Extent[]): Extent[] {
  const end = Math.max(
    0,
    ...[extents.at(-1), others.at(-1)].map((one) => (one ? one.offset + one.length : 0)),
  );
  const gaps = [...complement(others, end)];
  const result: Extent[] = [];
  let first = 0;
  for (const { offset, length } of extents) {
    while (first < gaps.length && gaps[first]!.offset + gaps[first]!.length <= offset) first++;
    for (let i = first; i < gaps.length && gaps[i]!.offset < offset + length; i++)
      result.push(...clipped([gaps[i]!], offset, offset + length));
  }
  return result;
}

/** Returns the used map of an image, and its warnings. */
export async function markImage(path: string, options: ReadUsedMapOptions = {}): Promise<MarkedMap> {
  await using image = await openImage(path);
  const bitmap = new Bitmap(image.size, 1024);
  const mark = await markUsed(bitmap, image.readAt, image.size, 512, options);
  assert.equal(bitmap.bytes(), mark.usedBytes);
  return mark;
}
