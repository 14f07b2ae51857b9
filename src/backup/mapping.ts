/** Reading the used map that a pass is planned with. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { lookAtWrites } from '../devices/write-watch.ts';
import { filePath } from '../base/file-name.ts';
import { syncFilesystem } from '../linux/syncfs.ts';
import type { MapResult } from './copy/messages.ts';
import { freezeWindow } from './freeze-window.ts';
import { loseTracking, takeDirty } from './finding.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import type { JobReporter } from './job-reporter.ts';
import { type JobUnit, isLive, synced } from './unit.ts';

/**
 * Reads the first map. Of a device that nothing tracks: from the running filesystem if syncing it puts its bitmaps on the
 * device (it is read again in the freeze), otherwise, or if that map contradicts itself, in a freeze.
 *
 * Of a tracked device it is never read as a whole in a freeze, since that takes as long as the filesystem is large: see
 * `mapTracked`.
 */
export async function mapUnit(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  report: JobReporter,
  signal: AbortSignal,
): Promise<void> {
  if (unit.map !== undefined) return;
  if (!isLive(unit)) {
    await flushDevice(unit);
    unit.look = await lookAtWrites(unit.pair.device);
    acceptMap(unit, await unit.pool.map('idle'));
    return;
  }
  if (unit.tracking !== undefined) return mapTracked(unit, options, environment, report, signal);
  await syncMounts(unit);
  const map = synced(unit) ? await readMap(unit, 'live') : undefined;
  if (map === undefined || map.everything) await mapFrozen(unit, options, environment, report, signal);
  else acceptMap(unit, map);
}

/**
 * If tracking has just begun, a freeze comes first: what was under way to the device before the tracker looked has arrived
 * then (kernel notes: a bio submitted before the programs were attached completes unseen). And XFS keeps its changes in
 * its log until it is frozen. The map is read when the filesystem runs again: what is in flux then, the freeze at the end
 * reads once more.
 */
async function mapTracked(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  report: JobReporter,
  signal: AbortSignal,
): Promise<void> {
  const incremental = unit.plan.kind === 'incremental';
  if (!synced(unit) && !isXfs(unit)) return mapFrozen(unit, options, environment, report, signal);
  if (!incremental || !synced(unit)) {
    // So that the first pass knows what was written after this moment: XFS' map does not show it (finding.ts).
    const take = (): Promise<void> => takeFrozen(unit, report);
    await inFreeze(unit, incremental ? take : undefined, options, environment, signal);
    if (unit.tracking === undefined) return mapFrozen(unit, options, environment, report, signal);
    if (incremental) await unit.tracking.feed.secure();
  }
  await syncMounts(unit);
  const map = await readMap(unit, 'live');
  // XFS' groups are large: all of one would be copied.
  const usable = !map.everything && (synced(unit) || (map.groups > 0 && map.groupsInFlux === 0));
  if (usable) acceptMap(unit, map);
  else await mapFrozen(unit, options, environment, report, signal);
}

/** True if the device itself is XFS; a map of its partitions has no groups, and is read as a whole. */
function isXfs({ mounts, pair }: JobUnit): boolean {
  return mounts.every(({ type, device }) => type === 'xfs' && device === pair.device.kernelName);
}

/** Reads the map of a live device anew for a further pass; keeps the old one where the new one contradicts itself. */
export async function remap(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  report: JobReporter,
  signal: AbortSignal,
): Promise<void> {
  await syncMounts(unit);
  if (synced(unit)) {
    const map = await readMap(unit, 'live');
    if (!map.everything) acceptMap(unit, map);
  } else if (unit.tracking === undefined) await mapFrozen(unit, options, environment, report, signal);
}

/**
 * Right before a freeze: reads again what has changed of the map, so that little of it is left for the freeze. The map
 * that passes go by only follows if it is sure to be no worse.
 */
export async function refreshMap(unit: JobUnit): Promise<void> {
  if (unit.tracking === undefined || (unit.map?.groups ?? 0) === 0) return;
  const map = await read(unit, 'live');
  if (map.everything || map.groupsInFlux > 0 || !synced(unit)) return;
  unit.pool.adoptMap();
  acceptMap(unit, map);
}

/** Reads the used map. A tentative one that came out as "everything" says nothing: the map stays as it was then. */
export async function readMap(unit: JobUnit, state: 'live' | 'frozen'): Promise<MapResult> {
  const map = await read(unit, state);
  if (unit.tracking !== undefined && (state === 'frozen' || !map.everything)) unit.pool.adoptMap();
  return map;
}

/** If a tracker tells what was written since the map was read last, only that is read. */
async function read(unit: JobUnit, state: 'live' | 'frozen'): Promise<MapResult> {
  const { pool, written, pair } = unit;
  const map =
    unit.tracking === undefined ? await pool.map(state) : await pool.mapKept(state, written.begin());
  unit.mapMs = map.ms;
  const { ms, groups, groupsRead, groupsInFlux, whyAll } = map;
  const figures = { device: pair.device.path, state, ms, groups, groupsRead, groupsInFlux, whyAll };
  unit.log.info(figures, 'used map read');
  return map;
}

/**
 * The map of an idle device that was written to. One that contradicts itself may have been read in the middle of a
 * write, so it is believed only if the next one does so too.
 */
export async function remapIdle(unit: JobUnit): Promise<void> {
  const { pool } = unit;
  const used = pool.used.clone();
  const map = await pool.map('idle');
  if (map.everything && unit.map?.everything === false && unit.mapped) {
    pool.used.copy(used);
    unit.mapped = false;
    return;
  }
  unit.mapped = true;
  acceptMap(unit, map);
}

async function mapFrozen(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  report: JobReporter,
  signal: AbortSignal,
): Promise<void> {
  const look = async (): Promise<void> => {
    await takeFrozen(unit, report);
    acceptMap(unit, await readMap(unit, 'frozen'));
  };
  await inFreeze(unit, look, options, environment, signal);
}

/** Take, then read. What is taken here and not secured is taken again. */
export async function takeFrozen(unit: JobUnit, report: JobReporter): Promise<void> {
  if (unit.tracking === undefined) return;
  try {
    await takeDirty(unit, unit.tracking.feed, true);
  } catch (error) {
    loseTracking(unit, error, report);
  }
}

async function inFreeze(
  unit: JobUnit,
  look: (() => Promise<void>) | undefined,
  options: JobOptions,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<void> {
  await freezeWindow(
    [unit],
    { ...options, preFreezeHook: undefined, postThawHook: undefined, frozenHook: undefined },
    environment,
    silentReport,
    { look: look ?? (() => Promise.resolve()) },
    signal,
  );
}

export function acceptMap(unit: JobUnit, map: MapResult): void {
  unit.map = map;
  unit.status.used_bytes = map.usedBytes;
  if (map.filesystem !== undefined) unit.status.filesystem = map.filesystem.type;
}

/** What was written to the device itself may still be in its page cache, where no tracker sees it. */
export async function flushDevice({ hold, pair }: JobUnit): Promise<void> {
  if (hold !== undefined) return hold.sync();
  if (pair.device.kind === 'file') return;
  const device = await open(pair.device.path, constants.O_RDONLY);
  try {
    await device.sync();
  } finally {
    await device.close();
  }
}

/** What is only in the page cache is neither on the device nor in the map; each pass is to find what it can. */
export async function syncMounts(unit: JobUnit): Promise<void> {
  for (const { path } of unit.mounts) {
    const directory = await open(filePath(path), constants.O_RDONLY | constants.O_NONBLOCK);
    try {
      await syncFilesystem(directory.fd);
    } finally {
      await directory.close();
    }
  }
}

const silentReport = { phase: () => undefined, warn: () => undefined };
