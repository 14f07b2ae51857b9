/**
 * A round of the completeness tests: copy the device, run random operations, take the dirty map, compare. A
 * changed block without a mark is a failure. While a filesystem is mounted, both copies are made in a freeze.
 */
import assert from 'node:assert/strict';
import { closeSync, openSync } from 'node:fs';
import { freezeFilesystem, thawFilesystem } from '../../src/linux/ioctl.ts';
import { newGeneration } from '../../src/tracking/generation.ts';
import type { TrackedDevice, Tracker } from '../../src/tracking/tracker.ts';
import { changedBlocks, sh, snapshot } from './guest.ts';
import { deviceOperation, fileOperation, makeFilesystem, pick, seeded, seedFiles } from './operations.ts';

export interface Round {
  readonly tracker: Tracker;
  readonly device: TrackedDevice;
  /** A name for messages. */
  readonly name: string;
  /** True to discard ranges of the bare device as well. */
  readonly discard: boolean;
  readonly mountPoint: string;
  readonly seed: number;
}

/**
 * Runs a round. Returns the numbers of 4 KiB blocks that changed, and that were marked. The device is left
 * unmounted.
 */
export async function runRound(round: Round): Promise<{ changed: number; marked: number }> {
  const { tracker, device, mountPoint, seed } = round;
  const random = seeded(seed);
  const filesystem = pick(random, ['ext4', 'xfs', undefined] as const);
  if (filesystem !== undefined)
    sh(
      `${makeFilesystem(filesystem, device.path)}; mount -t ${filesystem} ${device.path} ${mountPoint}; ${seedFiles(mountPoint)}`,
    );
  const scripts = Array.from({ length: 2 + Math.floor(random() * 6) }, () =>
    filesystem === undefined
      ? deviceOperation(random, device.path, device.size, round.discard)
      : fileOperation(random, filesystem, mountPoint, device.path),
  );
  const mounted = filesystem === undefined ? undefined : mountPoint;
  let copy: Buffer = Buffer.alloc(0);
  await still(mounted, async () => {
    (await tracker.take(device)).commit(newGeneration());
    copy = snapshot(device.path);
  });
  for (const script of scripts)
    try {
      sh(script);
    } catch (thrown) {
      throw new Error(`seed ${seed}, ${round.name}: ${script}`, { cause: thrown });
    }
  let counts = { changed: 0, marked: 0 };
  await still(mounted, async () => {
    const { dirty } = await tracker.take(device);
    const changed = changedBlocks(copy, device.path);
    const missed = changed.filter((offset) => !dirty.has(Math.floor(offset / dirty.unit)));
    counts = { changed: changed.length, marked: dirty.bytes() / 4096 };
    assert.deepEqual(
      missed.slice(0, 20),
      [],
      `seed ${seed}, ${round.name}: ${missed.length} of ${changed.length} changed blocks are not marked after\n${scripts.join('\n')}`,
    );
  });
  if (mounted !== undefined) sh(`umount ${mounted}`);
  return counts;
}

/** Fills the device, so that a discard or zeroes change something. `noise` is a file of 8 MiB. */
export function fillWithNoise(device: TrackedDevice, noise: string): void {
  sh(
    `for i in $(seq 0 ${Math.floor(device.size / (8 << 20)) - 1}); do dd if=${noise} of=${device.path} bs=1M seek=$((i * 8)) oflag=direct conv=notrunc status=none; done; sync`,
  );
}

/** Runs `work` with the filesystem frozen if it is mounted, otherwise after a sync. */
async function still(mounted: string | undefined, work: () => Promise<void>): Promise<void> {
  if (mounted === undefined) {
    sh('sync');
    return work();
  }
  const fd = openSync(mounted, 'r');
  try {
    await freezeFilesystem(fd);
    try {
      await work();
    } finally {
      await thawFilesystem(fd);
    }
  } finally {
    closeSync(fd);
  }
}
