/**
 * Chooses the tracker of a device: the first candidate that can follow the device, or the one that the caller asked
 * for. Each is opened when it is first needed and then kept, so a daemon that tracks nothing holds no resources for it.
 */
import { AgentError, toAgentError } from '../base/errors.ts';
import type { Extent } from '../base/extents.ts';
import type {
  DeviceNumbers,
  Remains,
  TrackedDevice,
  TrackedEpoch,
  Tracker,
  TrackingState,
} from './tracker.ts';

export type TrackerWish = 'auto' | 'ebpf' | 'blktrace' | 'none';

/** Says if this machine has what a tracker needs. */
export interface TrackerSupport {
  readonly supported: boolean;
  /** Why the tracker is supported, or why not. */
  readonly why: string;
  /** Steps that would help; empty if the tracker is supported. */
  readonly help: string;
}

export interface TrackerCandidate {
  readonly kind: Tracker['kind'];
  support(): Promise<TrackerSupport>;
  open(): Promise<Tracker>;
  /** Returns true if an earlier process may have left a trace, program or map that still tracks. Quick. */
  leftSomething(): boolean;
  /**
   * Reserves the traces, programs and maps that earlier processes left, if any, until `release`. Throws DEVICE_BUSY if
   * another process has them.
   */
  claim?(): void;
  release?(): void;
  /**
   * Removes from the kernel all that ended processes of any version left there. Returns names of what it removed, for
   * the user. Throws DEVICE_BUSY if a process still uses it.
   */
  removeLeft?(): Promise<readonly string[]>;
}

export interface Tracked extends TrackedEpoch {
  readonly tracker: Tracker;
  /** Why an earlier epoch could not be continued. */
  readonly doubt: string | undefined;
  /** True if the device was not tracked before. A caller that does not continue with it untracks it again. */
  readonly began: boolean;
}

/**
 * Begins or continues to track; returns `why` if no tracker follows the device. Throws NOT_SUPPORTED if the wish cannot
 * be granted.
 */
export type StartTracking = (
  device: TrackedDevice,
  wish: TrackerWish,
) => Promise<Tracked | { readonly tracker: undefined; readonly why: string }>;

export interface DeviceTracking {
  readonly state: TrackingState;
  /** Why writes may have been missed, so that the next backup compares. */
  readonly doubt: string | undefined;
}

export class TrackerRegistry {
  readonly #candidates: readonly TrackerCandidate[];
  readonly #open = new Map<TrackerCandidate, Promise<Tracker>>();

  /** `candidates`: the best first. */
  constructor(candidates: readonly TrackerCandidate[]) {
    this.#candidates = candidates;
  }

  /** Reserves what earlier processes left, so that no other process can use it. Throws DEVICE_BUSY. */
  claim(): void {
    for (const candidate of this.#candidates) candidate.claim?.();
  }

  readonly start: StartTracking = async (device, wish) => {
    if (wish === 'none') return { tracker: undefined, why: 'tracking was turned off (--tracker none)' };
    const refusals: string[] = [];
    for (const candidate of this.#candidates) {
      if (wish !== 'auto' && candidate.kind !== wish) continue;
      try {
        const tracker = await this.#opened(candidate);
        const began = tracker.state(device) === undefined;
        return { tracker, began, ...(await tracker.track(device)) };
      } catch (thrown) {
        const error = toAgentError(thrown);
        if (!isRefusal(error)) throw thrown;
        if (wish !== 'auto') throw notPossible(device, candidate.kind, error);
        refusals.push(`${candidate.kind}: ${error.message}`);
      }
    }
    if (wish !== 'auto')
      throw new AgentError('NOT_SUPPORTED', `This program has no tracker "${wish}"`, {
        hint: 'leave --tracker out for the best that the machine offers',
      });
    const reasons = refusals.length === 0 ? '' : ` (${refusals.join('; ')})`;
    return { tracker: undefined, why: `no tracker records the writes to it${reasons}` };
  };

  /** Returns each candidate's answer for this machine, the best first. */
  async support(): Promise<(TrackerSupport & Pick<TrackerCandidate, 'kind'>)[]> {
    const all = [];
    for (const candidate of this.#candidates)
      all.push({ kind: candidate.kind, ...(await candidate.support()) });
    return all;
  }

  /** Returns how a device is tracked now; undefined if it is not tracked. */
  async look(device: TrackedDevice): Promise<DeviceTracking | undefined> {
    for (const tracker of await this.#running()) {
      const state = tracker.state(device);
      if (state !== undefined) return { state, doubt: tracker.doubt?.(device) };
    }
    return undefined;
  }

  /** Returns the devices that have a map of an earlier process or of this one, if their trackers can list them. */
  async tracked(): Promise<(DeviceNumbers & Pick<TrackedDevice, 'path' | 'size'>)[]> {
    return (await this.#running()).flatMap((tracker) => tracker.tracked?.() ?? []);
  }

  /** Returns the map that is left of a device. The device may be gone. */
  async remains(device: DeviceNumbers): Promise<Remains | undefined> {
    for (const tracker of await this.#running()) {
      const remains = tracker.remains?.(device);
      if (remains !== undefined) return remains;
    }
    return undefined;
  }

  /** Marks extents of a device as dirty that were written while no tracker could see the writes. */
  async mark(device: DeviceNumbers, extents: readonly Extent[]): Promise<void> {
    for (const tracker of await this.#running()) await tracker.mark?.(device, extents);
  }

  /** Ends the tracking of one device by all trackers. */
  async untrack(device: DeviceNumbers): Promise<void> {
    for (const tracker of await this.#running()) await tracker.untrack(device);
  }

  /** Ends all tracking, including what earlier processes left. Trackers are opened again when they are needed. */
  async stop(): Promise<void> {
    for (const tracker of await this.#running()) await (tracker.stop?.() ?? tracker.close());
    this.#open.clear();
  }

  /** Closes what this process holds. Pinned maps continue in the kernel. */
  async close(): Promise<void> {
    const open = [...this.#open.values()];
    this.#open.clear();
    await Promise.all(open.map(async (tracker) => (await tracker.catch(() => undefined))?.close()));
    for (const candidate of this.#candidates) candidate.release?.();
  }

  /** Returns the trackers that hold something: those in use, and those of which an earlier process left something. */
  async #running(): Promise<Tracker[]> {
    const running: Tracker[] = [];
    for (const candidate of this.#candidates)
      if (this.#open.has(candidate) || candidate.leftSomething()) running.push(await this.#opened(candidate));
    return running;
  }

  #opened(candidate: TrackerCandidate): Promise<Tracker> {
    const open = this.#open.get(candidate);
    if (open !== undefined) return open;
    const opening = candidate.open();
    this.#open.set(candidate, opening);
    // If this fails, a later attempt may succeed, so the failure is not kept.
    opening.catch(() => this.#open.delete(candidate));
    return opening;
  }
}

function isRefusal({ code }: AgentError): boolean {
  return code === 'NOT_SUPPORTED' || code === 'NO_PERMISSION' || code === 'DEVICE_BUSY';
}

function notPossible({ path }: TrackedDevice, kind: string, cause: AgentError): AgentError {
  return new AgentError('NOT_SUPPORTED', `${path} cannot be tracked by ${kind}: ${cause.message}`, {
    hint: `${cause.hint ?? 'see dattocli tracking'}; without --tracker the best that works is used`,
    cause,
  });
}
