/**
 * The memory that a job needs before it keeps any block for the freeze, and the number of connections for each device
 * that fit. A job that cannot fit is refused, because the kernel would kill the daemon in the middle of it.
 */
import { MiB, formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { AvailableMemory } from '../../linux/memory.ts';

export interface MemoryUser {
  /** Bytes of the device. */
  readonly size: number;
  readonly intoVault: boolean;
}

/** For the job as a whole: the guard of the freeze, which is a separate process, and the least room for the thaw. */
const job = 48 * MiB;
/** A copying thread with its heap and its requests under way. */
const thread = 28 * MiB;
/**
 * In addition, for a vault: packs that are filled and uploaded, and parts that are read back. Small devices fill less.
 */
const packs = 56 * MiB;

/** Returns bytes. */
export function memoryNeed(devices: readonly MemoryUser[], connections: number): number {
  return devices.reduce(
    (sum, { size, intoVault }) => sum + connections * (thread + (intoVault ? Math.min(packs, 2 * size) : 0)),
    job,
  );
}

/** Returns `wanted`, or 1 if only that fits. Throws NOT_ENOUGH_MEMORY if even that does not fit. */
export function affordedConnections(
  devices: readonly MemoryUser[],
  wanted: number,
  available: AvailableMemory,
): number {
  if (memoryNeed(devices, wanted) <= available.withSwap) return wanted;
  const need = memoryNeed(devices, 1);
  if (need <= available.withSwap) return 1;
  const { group } = available;
  const count = devices.length === 1 ? 'one device' : `${devices.length} devices`;
  throw new AgentError(
    'NOT_ENOUGH_MEMORY',
    `A backup of ${count} takes about ${formatBytes(need)} of memory, and ` +
      `${group === undefined ? 'this machine' : `the control group ${group}`} has ${formatBytes(available.withSwap)} left`,
    {
      hint:
        (group === undefined
          ? 'end other programs'
          : "raise the group's limit (MemoryMax= of a systemd unit)") +
        (devices.length === 1 ? '' : ', or back up fewer devices in one job'),
    },
  );
}
