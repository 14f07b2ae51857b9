/**
 * How full a snapshot is, from the status line of device-mapper (the kernel's
 * Documentation/admin-guide/device-mapper/snapshot.rst and thin-provisioning.rst). Pure functions.
 */

export interface SnapshotUsage {
  /** Bytes in use of `size` bytes: of the snapshot's own space, or of the thin pool. */
  readonly used: number;
  readonly size: number;
  /** Why the snapshot cannot be used any more, or soon cannot. Undefined while all is well. */
  readonly over: string | undefined;
}

/**
 * Share of a thin pool above which a backup stops: it must never fill the pool, since the pool's volumes would stop.
 */
const poolLimit = 0.98;

const sector = 512;

/** Parses `START LENGTH snapshot USED/TOTAL METADATA`, or a word instead of the numbers. */
export function thickUsage(status: string): SnapshotUsage {
  const [, used, size] = /^\d+ \d+ snapshot (\d+)\/(\d+) \d+/.exec(status) ?? [];
  if (used !== undefined && size !== undefined) {
    const usage = { used: Number(used) * sector, size: Number(size) * sector };
    return { ...usage, over: usage.used >= usage.size ? 'it is full' : undefined };
  }
  const word = /^\d+ \d+ snapshot (.*)$/.exec(status)?.[1];
  return { used: 0, size: 0, over: word === undefined ? 'it is gone' : `it is ${word.toLowerCase()}` };
}

/**
 * Parses `START LENGTH thin-pool TRANSACTION META_USED/META_TOTAL DATA_USED/DATA_TOTAL ROOT MODE …`, in blocks of the
 * pool.
 */
export function thinUsage(status: string): SnapshotUsage {
  const match = /^\d+ (\d+) thin-pool \d+ (\d+)\/(\d+) (\d+)\/(\d+) \S+ (\S+)/.exec(status);
  if (match === null) return { used: 0, size: 0, over: 'its pool has failed' };
  const [length = 0, metaUsed = 0, metaBlocks = 0, used = 0, blocks = 0] = match.slice(1, 6).map(Number);
  const mode = match[6]!;
  const size = length * sector;
  const usage = { used: blocks === 0 ? 0 : Math.round((used / blocks) * size), size };
  if (mode !== 'rw') return { ...usage, over: `its pool is ${mode.replaceAll('_', ' ')}` };
  if (metaUsed >= metaBlocks * poolLimit)
    return { ...usage, over: `${metaUsed} of ${metaBlocks} blocks of metadata of its pool are in use` };
  return { ...usage, over: used >= blocks * poolLimit ? 'its pool is nearly full' : undefined };
}
