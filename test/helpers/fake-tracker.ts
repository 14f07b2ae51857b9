/** A tracker that accepts every device and never sees a write, for tests of the daemon and the command. */
import { Bitmap } from '../../src/base/bitmap.ts';
import type { TrackerCandidate } from '../../src/tracking/tracker-registry.ts';
import { newGeneration } from '../../src/tracking/generation.ts';
import type { TrackedDevice, Tracker, TrackingState } from '../../src/tracking/tracker.ts';

/** `refusal`: the reason why `support` refuses. */
export function fakeTracker(refusal?: { why: string; help: string }): TrackerCandidate {
  const devices = new Map<string, TrackedDevice>();
  const keyOf = ({ major, minor }: Pick<TrackedDevice, 'major' | 'minor'>) => `${major}:${minor}`;
  let generation = newGeneration();
  const epoch = { id: 'fake-epoch', since: 1_000_000_000_000 };
  const tracker: Tracker = {
    kind: 'test',
    track: (device) => {
      devices.set(keyOf(device), device);
      return Promise.resolve({ epoch, generation, doubt: undefined });
    },
    take: (device) =>
      Promise.resolve({
        ...{ epoch, generation, dirty: new Bitmap(device.size, 4096) },
        commit: (next) => {
          generation = next;
          return true;
        },
      }),
    state: (device): TrackingState | undefined =>
      devices.has(keyOf(device))
        ? { kind: 'test', epoch, unit: 4096, memory: 2048, pinned: true, dirtyBytes: 8192 }
        : undefined,
    untrack: (device) => {
      devices.delete(keyOf(device));
      return Promise.resolve();
    },
    tracked: () => [...devices.values()],
    stop: () => {
      devices.clear();
      return Promise.resolve();
    },
    close: () => Promise.resolve(),
  };
  return {
    kind: 'test',
    support: () =>
      Promise.resolve(
        refusal === undefined
          ? { supported: true, why: 'it is a fake', help: '' }
          : { supported: false, ...refusal },
      ),
    open: () => Promise.resolve(tracker),
    leftSomething: () => devices.size > 0,
  };
}
