/**
 * `dattod --remove-tracking`: removes programs, maps and traces from the kernel without a daemon. The removal of a
 * package has to do this (docs/tracking.md). The next incremental then becomes a differential.
 */
import type { DaemonDependencies } from './daemon-dependencies.ts';
import { claimInstance } from './instance.ts';
import type { DaemonSettings } from './settings.ts';
import { writeOut } from '../base/visible.ts';

/**
 * Removes them, prints the names of what it removed, and returns the exit code. Throws DAEMON_ALREADY_RUNNING, or
 * DEVICE_BUSY if another process tracks.
 */
export async function removeTracking(
  { pidFile, pinDirectory, runDirectory }: DaemonSettings,
  { tryLock, trackerCandidates }: Pick<DaemonDependencies, 'tryLock' | 'trackerCandidates'>,
): Promise<number> {
  // A running daemon would begin to track again with its next job.
  const instance = claimInstance(pidFile, tryLock);
  try {
    const removed: string[] = [];
    for (const candidate of trackerCandidates({ pinDirectory, runDirectory }))
      removed.push(...((await candidate.removeLeft?.()) ?? []));
    writeOut(
      removed.length === 0
        ? 'nothing of tracking was left in the kernel\n'
        : removed.map((what) => `removed ${what}\n`).join(''),
    );
    return 0;
  } finally {
    instance.release();
  }
}
