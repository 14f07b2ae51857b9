/** Reading the allocation map that a pass is planned with. */
import type { ReadMap } from '../copy/pool.ts';
import { type DeviceBackup, isSynced } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { silentReporter } from '../job-reporter.ts';
import { takeInFreeze } from './find-changes.ts';
import { freezeWindow } from './freeze-window.ts';
import { syncMounts } from './sync-device.ts';

/**
 * Reads the first map of a live device, unless it was read already. If nothing tracks the device, the map is read from
 * the running filesystem, if syncing brings its bitmaps to the device. It is read again in the freeze. Otherwise, or if
 * that map contradicts itself, it is read in a freeze.
 *
 * The map of a tracked device is never read as a whole in a freeze, since the time for that grows with the filesystem:
 * see `readTrackedMap`.
 */
export async function readFirstMap(device: DeviceBackup, job: JobContext): Promise<void> {
  if (device.map.last !== undefined) return;
  if (device.ledger.isTracked) return readTrackedMap(device, job);
  await syncMounts(device);
  const map = isSynced(device) ? await readMap(device, job, 'live') : undefined;
  if (map === undefined || map.everything) await readFrozenMap(device, job);
  else acceptMap(device, map);
}

/**
 * If tracking has just begun, a freeze comes first. After it, writes that were on their way before the tracker started
 * have reached the device. The tracker cannot see them (kernel notes: a bio submitted before the programs were attached
 * completes unseen). XFS also keeps its changes in its log until it is frozen. The map is read when the filesystem runs
 * again. The freeze at the end reads the parts again that were changing.
 */
async function readTrackedMap(device: DeviceBackup, job: JobContext): Promise<void> {
  const isIncremental = device.plan.kind === 'incremental';
  if (!isSynced(device) && !isXfs(device)) return readFrozenMap(device, job);
  if (!isIncremental || !isSynced(device)) {
    // The first pass must know the writes after this moment, since XFS' map does not show them (find-changes.ts).
    const take = isIncremental ? (): Promise<void> => takeInFreeze(device, job) : nothing;
    await inFreeze(device, job, take);
    if (!device.ledger.isTracked) return readFrozenMap(device, job);
    if (isIncremental) await device.ledger.saveFound();
  }
  await syncMounts(device);
  const map = await readMap(device, job, 'live');
  // The groups of XFS are large, and all blocks of a group in flux would be copied.
  const isUsable = !map.everything && (isSynced(device) || (map.groups > 0 && map.groupsInFlux === 0));
  if (isUsable) acceptMap(device, map);
  else await readFrozenMap(device, job);
}

/** True if the device itself is XFS. A map of its partitions has no groups, and is read as a whole. */
function isXfs({ mounts, pair }: DeviceBackup): boolean {
  return mounts.every(({ type, device }) => type === 'xfs' && device === pair.device.kernelName);
}

/** Reads the map of a live device again for a further pass. Keeps the old one if the new one contradicts itself. */
export async function readMapAgain(device: DeviceBackup, job: JobContext): Promise<void> {
  await syncMounts(device);
  if (isSynced(device)) {
    const map = await readMap(device, job, 'live');
    if (!map.everything) acceptMap(device, map);
  } else if (!device.ledger.isTracked) await readFrozenMap(device, job);
}

/**
 * Reads the changed parts of the map again right before a freeze, so that little of it is left for the freeze. The
 * passes use the new map only if it is certainly no worse than the old one.
 */
export async function refreshMap(device: DeviceBackup, job: JobContext): Promise<void> {
  if (!device.ledger.isTracked || (device.map.last?.groups ?? 0) === 0) return;
  const map = await read(device, job, 'live');
  if (map.everything || map.groupsInFlux > 0 || !isSynced(device)) return;
  device.ledger.useMap(map.used);
  acceptMap(device, map);
}

/**
 * Reads the map. If the map of a running filesystem came out as "everything", the ledger keeps the previous map: the
 * metadata may have contradicted itself during the reading.
 */
export async function readMap(
  device: DeviceBackup,
  job: JobContext,
  state: 'live' | 'frozen',
): Promise<ReadMap> {
  const map = await read(device, job, state);
  if (state === 'frozen' || !map.everything) device.ledger.useMap(map.used);
  return map;
}

/**
 * Reads only the written parts if a tracker knows the writes since the last reading of the map; otherwise reads all.
 */
async function read(device: DeviceBackup, job: JobContext, state: 'live' | 'frozen'): Promise<ReadMap> {
  const { pool, ledger, pair } = device;
  const map = ledger.isTracked
    ? await pool.readKeptMap(state, ledger.beginMapReading())
    : await pool.readMap(state);
  device.map.wasRead(map);
  const { ms, groups, groupsRead, groupsInFlux, whyAll } = map;
  const figures = { device: pair.device.path, state, ms, groups, groupsRead, groupsInFlux, whyAll };
  job.environment.log.info(figures, 'used map read');
  return map;
}

/**
 * Reads the map of an idle device that was written to. If the map contradicts itself, it may have been read during a
 * write. So it is accepted only if the next one contradicts itself, too.
 */
export async function readIdleMap({ pool, ledger, map, status }: DeviceBackup): Promise<void> {
  const result = await pool.readMap('idle');
  if (result.everything && map.last?.everything === false && map.isCurrent) {
    map.doubt();
    return;
  }
  ledger.useMap(result.used);
  acceptMap({ map, status }, result);
}

async function readFrozenMap(device: DeviceBackup, job: JobContext): Promise<void> {
  await inFreeze(device, job, async () => {
    // Invariant 1: take, then read. A take that is not saved is taken again.
    await takeInFreeze(device, job);
    acceptMap(device, await readMap(device, job, 'frozen'));
  });
}

/** Runs `look` in a freeze of its own. No hook runs for it, and the status of the job does not show it. */
async function inFreeze(device: DeviceBackup, job: JobContext, look: () => Promise<void>): Promise<void> {
  const withoutHooks = { preFreezeHook: undefined, postThawHook: undefined, frozenHook: undefined };
  const quietly = { ...job, options: { ...job.options, ...withoutHooks }, reporter: silentReporter };
  await freezeWindow([device], quietly, { look });
}

const nothing = (): Promise<void> => Promise.resolve();

export function acceptMap({ map, status }: Pick<DeviceBackup, 'map' | 'status'>, result: ReadMap): void {
  map.accept(result);
  status.used_bytes = result.usedBytes;
  if (result.filesystem !== undefined) status.filesystem = result.filesystem.type;
}

/** Reports the warnings of the last reading of the map. */
export function warnOfMap({ map, pair }: DeviceBackup, { reporter }: JobContext): void {
  const { last } = map;
  for (const message of last?.warnings ?? [])
    reporter.warn(
      last?.everything === true ? 'EVERYTHING_USED' : 'FILESYSTEM_WARNING',
      message,
      pair.device.path,
    );
}
