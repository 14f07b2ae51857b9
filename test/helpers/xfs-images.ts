/**
 * XFS images for tests: their content, and a comparison of their used maps with xfs_db's view. Needs root and
 * xfsprogs.
 */
import assert from 'node:assert/strict';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { complement, type Extent, merged, totalLength } from '../../src/base/extents.ts';
import { openDeviceSource } from '../../src/block/device-source.ts';
import type { MountState } from '../../src/filesystems/used-map.ts';
import { readXfsUsedMap } from '../../src/filesystems/xfs/xfs.ts';
import { exec } from './exec.ts';
import { type LoopDisk, mountDevice, unmount } from './loop.ts';
import { collectExtents, without } from './used-extents.ts';
import { xfsDb } from './xfs-oracle.ts';

export interface Outcome {
  readonly everything: boolean;
  readonly warnings: string;
  readonly used: readonly Extent[];
  readonly size: number;
}

export async function mapOf(path: string, state: MountState = 'idle'): Promise<Outcome> {
  const source = await openDeviceSource(path);
  const readAt = source.readAt.bind(source);
  try {
    const map = await readXfsUsedMap(readAt, source.size, { state });
    const used = await collectExtents(map.extents, source.size);
    return { everything: map.everything, warnings: map.warnings.join('; '), used, size: source.size };
  } finally {
    await source.close();
  }
}

export interface Comparison {
  /**
   * Bytes of the filesystem that count as used though they are free. These are the free lists and nothing
   * else.
   */
  readonly overCount: number;
  readonly levels: number;
  readonly extents: number;
}

/** Compares a map with xfs_db's view of the image. */
export async function compare(outcome: Outcome, image: string): Promise<Comparison> {
  assert.equal(outcome.everything, false, outcome.warnings);
  const oracle = await xfsDb(image);
  const free = [...complement(outcome.used, outcome.size)];
  const oracleFree = [...merged(oracle.free)];
  assert.deepEqual(without(free, oracleFree), [], 'free here, used by xfs_db');
  const overCount = totalLength(without(oracleFree, free));
  assert.equal(overCount, oracle.freeList, 'used here beyond the free lists');
  return { overCount, levels: oracle.levels, extents: free.length };
}

/** Mounts the filesystem while `work` runs. */
export async function mounted(
  disk: Pick<LoopDisk, 'device' | 'directory'>,
  work: (mountPoint: string) => Promise<void>,
  options?: string,
): Promise<void> {
  const mountPoint = join(disk.directory, 'mnt');
  await mountDevice(disk.device, mountPoint, options);
  try {
    await work(mountPoint);
  } finally {
    await unmount(mountPoint);
  }
}

/**
 * Writes files of many sizes, removes every third, and makes one file with `holes` holes of a block between
 * blocks.
 */
export async function fill(mountPoint: string, holes: number, blockSize: number): Promise<void> {
  for (let directory = 0; directory < 8; directory++) await mkdir(join(mountPoint, `d${directory}`));
  const name = (i: number): string => join(mountPoint, `d${i % 8}`, `f${i}`);
  for (let i = 0; i < 200; i++) await writeFile(name(i), Buffer.alloc((i * 977) % 50_000, i));
  for (let i = 0; i < 200; i += 3) await rm(name(i));
  const commands = [`falloc 0 ${holes * 2 * blockSize}`];
  for (let i = 0; i < holes; i++) commands.push(`fpunch ${i * 2 * blockSize} ${blockSize}`);
  await exec('xfs_io', ['-f', join(mountPoint, 'holes')], { input: `${commands.join('\n')}\n` });
}
