/**
 * The trackers of this program, the best first. The code and programs that a tracker needs are loaded when it is
 * opened.
 */
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../base/errors.ts';
import type { TrackerCandidate } from './tracker-registry.ts';
import { PinLock } from './ebpf/pin-lock.ts';

export interface TrackerPlaces {
  /** A directory on a bpffs: programs and maps that outlive the daemon are pinned there. */
  readonly pinDirectory: string;
  /** A directory on a tmpfs for records of block traces. */
  readonly runDirectory: string;
}

export function trackerCandidates({ pinDirectory, runDirectory }: TrackerPlaces): TrackerCandidate[] {
  const lock = new PinLock(pinDirectory);
  return [
    {
      kind: 'ebpf',
      support: async () => (await import('./ebpf/support.ts')).trackingSupport(),
      open: async () => (await import('./ebpf/tracker.ts')).EbpfTracker.open({ pinDirectory, lock }),
      leftSomething: () => hasEntries(pinDirectory),
      claim: () => void lock.acquire(),
      release: () => lock.release(),
      removeLeft: async () =>
        (await (await import('./ebpf/installation.ts')).removeAllPins(pinDirectory)).map((name) =>
          join(pinDirectory, name),
        ),
    },
    {
      kind: 'blktrace',
      support: async () => (await import('./blktrace/support.ts')).blktraceSupport(runDirectory),
      open: async () =>
        new (await import('./blktrace/blktrace-tracker.ts')).BlktraceTracker({ runDirectory }),
      // Its maps end with the process.
      leftSomething: () => false,
      removeLeft: async () =>
        (await (await import('./blktrace/remove-left.ts')).removeLeftTraces(runDirectory)).map(
          (path) => `block trace of ${path}`,
        ),
    },
  ];
}

function hasEntries(directory: string): boolean {
  try {
    return readdirSync(directory).length > 0;
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return false;
    throw thrown;
  }
}
