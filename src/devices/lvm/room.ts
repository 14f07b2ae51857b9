/** Whether a temporary snapshot of a volume is possible, and how large it will be. Pure functions. */
import { formatBytes, MiB, GiB } from '../../base/bytes.ts';
import type { Volume } from './volumes.ts';

export interface SnapshotRoom {
  readonly kind: 'thick' | 'thin';
  readonly volume: Volume;
  /** Thick: number of extents that the snapshot gets. */
  readonly extents: number;
  /** Thin: the pool that the snapshot shares with the volume. */
  readonly pool: Volume | undefined;
}

/**
 * Default size of a thick snapshot: this share of the volume, or these bytes if larger, as far as there is free space.
 */
const usualShare = 0.1;
const usualLeast = GiB;
/** Least size, as a share of the volume and in bytes. A smaller snapshot would hardly be worth beginning. */
const leastShare = 0.01;
const leastBytes = 16 * MiB;
/** Percent of metadata in use, above which a pool takes no snapshot. */
const mostMetadata = 90;

/** Computes the size. `wanted` is in bytes, for a thick snapshot; undefined for the default. */
export function findRoom(
  volumes: readonly Volume[],
  volume: Volume,
  wanted: number | undefined,
): SnapshotRoom | { readonly why: string } {
  const name = `${volume.group}/${volume.name}`;
  if (volume.trouble !== '') return { why: `the volume group ${volume.group} ${volume.trouble}` };
  const kind = volume.attributes[0] ?? '';
  if (volume.segmentType === 'thin') return thinRoom(volumes, volume);
  // Plain, origin of other snapshots, RAID, cached (lvs(8), lv_attr). lvm2 takes no snapshots of other kinds.
  if (!['-', 'o', 'r', 'R', 'C'].includes(kind))
    return { why: `no snapshot can be taken of ${name}, which is of the type ${volume.segmentType}` };
  const { extentSize, groupFree } = volume;
  // At most: the whole volume, and 24 bytes for each of its chunks of 4 KiB.
  const most = Math.ceil((volume.size * 1.01) / extentSize) * extentSize + extentSize;
  const least = Math.min(most, wanted ?? Math.max(leastBytes, volume.size * leastShare));
  const size = Math.min(most, wanted ?? Math.max(usualLeast, volume.size * usualShare), groupFree);
  const extents = Math.ceil(Math.min(size, groupFree) / extentSize);
  if (groupFree < least || extents * extentSize > groupFree)
    return {
      why: `the volume group ${volume.group} has ${formatBytes(groupFree)} free, and a snapshot of ${name} needs ${formatBytes(Math.ceil(least))}`,
    };
  return { kind: 'thick', volume, extents, pool: undefined };
}

function thinRoom(volumes: readonly Volume[], volume: Volume): SnapshotRoom | { readonly why: string } {
  const pool = volumes.find(({ group, name }) => group === volume.group && name === volume.pool);
  if (pool === undefined) return { why: `the pool of ${volume.group}/${volume.name} was not found` };
  const name = `${pool.group}/${pool.name}`;
  const free = Math.floor(pool.size * (1 - (pool.dataPercent ?? 100) / 100));
  const least = Math.ceil(Math.max(leastBytes, volume.size * leastShare));
  if (free < least)
    return {
      why: `the thin pool ${name} has ${formatBytes(free)} free, and a snapshot of ${volume.name} needs ${formatBytes(least)}`,
    };
  if ((pool.metadataPercent ?? 100) > mostMetadata)
    return { why: `${pool.metadataPercent ?? 100} % of the metadata of the thin pool ${name} are in use` };
  return { kind: 'thin', volume, extents: 0, pool };
}

/**
 * True if device-mapper can suspend a device whose filesystem is already frozen: since Linux 6.8 (FREEZE_MAY_NEST). On
 * older kernels the freeze of device-mapper fails with EBUSY, and lvcreate leaves a volume behind.
 */
export function freezesNest(release: string): boolean {
  const [, major = '0', minor = '0'] = /^(\d+)\.(\d+)/.exec(release) ?? [];
  return Number(major) > 6 || (Number(major) === 6 && Number(minor) >= 8);
}
