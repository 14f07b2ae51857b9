/**
 * Decides if a mounted device that nothing tracks gets its instant from a temporary LVM snapshot. All checks that are
 * possible before the job starts are made here. Nothing is changed.
 */
import { release } from 'node:os';
import { toAgentError } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { findRoom, freezesNest, type SnapshotRoom } from '../../devices/lvm/room.ts';
import { LvmSnapshot } from '../../devices/lvm/snapshot.ts';
import { dmUuidOf, listVolumes, lvmInstalled, volumeUuid } from '../../devices/lvm/volumes.ts';
import { liesOn, type MountedFilesystem, type Stack } from '../../devices/stacking.ts';
import type { JobEnvironment, JobOptions } from '../job.ts';
import { targetPaths } from './self-target.ts';
import type { TargetSpec } from '../copy/targets.ts';
import { SnapshotInstant } from '../run/snapshot-instant.ts';

export interface SnapshotContext {
  readonly job: string;
  /** Number of the pair in the job, and the number of pairs. */
  readonly number: number;
  readonly pairs: number;
  readonly mounts: readonly MountedFilesystem[];
  readonly target: TargetSpec;
  /** Set if the target is a vault in a directory. */
  readonly vaultDirectory: string | undefined;
  readonly stack: Stack;
  readonly options: JobOptions;
  readonly environment: JobEnvironment;
}

/** `why` there is no snapshot: empty if the device is not a logical volume, or if no snapshot was wanted. */
export async function prepareSnapshot(
  device: Device,
  context: SnapshotContext,
): Promise<SnapshotInstant | { readonly why: string }> {
  const { options, environment, stack } = context;
  const node = stack.devices.find(({ name }) => name === device.kernelName);
  const uuid = volumeUuid(node?.dm?.uuid);
  if (uuid === undefined || options.snapshot === 'never' || environment.offline === true) return { why: '' };
  const freezesItself = freezesAlone(device, context);
  if (!freezesItself && !freezesNest(release()))
    return {
      why: 'before Linux 6.8 LVM cannot take a snapshot of a frozen filesystem, which several filesystems at one instant need',
    };
  if (!lvmInstalled()) return { why: 'lvm2 is not installed' };
  try {
    const volumes = await listVolumes();
    const volume = volumes.find((each) => dmUuidOf(each) === uuid);
    if (volume === undefined) return { why: 'lvm2 does not know the volume' };
    const room = findRoom(volumes, volume, options.snapshotSize);
    if ('why' in room) return room;
    const shared = await sharesPool(room, device, context);
    if (shared !== undefined) return { why: shared };
    const { job, number } = context;
    const { stateDirectory, log } = environment;
    const place = { room, kernelName: device.kernelName, job, number, stateDirectory, log };
    const snapshot = new LvmSnapshot(place);
    const why = await snapshot.refusal();
    return why === undefined ? new SnapshotInstant(snapshot, { freezesItself }) : { why };
  } catch (thrown) {
    return { why: toAgentError(thrown).message };
  }
}

/** True for a single filesystem right on the volume: device-mapper freezes it itself, for no longer than necessary. */
function freezesAlone(device: Device, { pairs, mounts, options }: SnapshotContext): boolean {
  const [only, ...others] = mounts;
  return (
    pairs === 1 &&
    others.length === 0 &&
    only?.device === device.kernelName &&
    options.frozenHook === undefined
  );
}

/**
 * Returns the reason if the target lies in the same thin pool: its writes would take the room that the snapshot needs.
 */
async function sharesPool(
  { pool }: SnapshotRoom,
  device: Device,
  { target, vaultDirectory, stack }: SnapshotContext,
): Promise<string | undefined> {
  if (pool === undefined) return undefined;
  const node = stack.devices.find(({ dm }) => dm?.uuid === `${dmUuidOf(pool)}-tpool`);
  if (node === undefined) return undefined;
  const paths = [...(await targetPaths(target, device.size)), ...(vaultDirectory ? [vaultDirectory] : [])];
  for (const path of paths)
    if ((await liesOn(stack, path, node.name).catch(() => undefined)) !== undefined)
      return `${path} lies in the same thin pool, ${pool.group}/${pool.name}`;
  return undefined;
}
