/** Reading the used map that a pass is planned with. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { lookAtWrites } from '../devices/write-watch.ts';
import { filePath } from '../base/file-name.ts';
import { syncFilesystem } from '../linux/syncfs.ts';
import type { MapResult } from './copy/messages.ts';
import { freezeWindow } from './freeze-window.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import { type JobUnit, isLive } from './unit.ts';

/**
 * Reads the first map. ext filesystems put their bitmaps on the device when they are synced, so that a tentative
 * map of a running one is nearly right (it is read again in the freeze); where it contradicts itself, the
 * filesystem is frozen for the moment of reading it. XFS keeps its changes in the log until it is frozen. And
 * where tracking has just begun there is a freeze as well: what was under way to the device before the tracker
 * looked has arrived then (kernel notes: a bio submitted before the programs were attached completes unseen).
 */
export async function mapUnit(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<void> {
  if (unit.map !== undefined) return;
  if (!isLive(unit)) {
    await flushDevice(unit);
    unit.look = await lookAtWrites(unit.pair.device);
    acceptMap(unit, await unit.pool.map('idle'));
    return;
  }
  const drain = unit.tracking !== undefined && unit.plan.kind !== 'incremental';
  await syncMounts(unit);
  const map = drain || !synced(unit) ? undefined : await unit.pool.map('live');
  if (map === undefined || map.everything) await mapFrozen(unit, options, environment, signal);
  else acceptMap(unit, map);
}

/** Reads the map of a live device anew for a further pass; keeps the old one where the new one contradicts itself. */
export async function remap(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<void> {
  await syncMounts(unit);
  if (synced(unit)) {
    const map = await unit.pool.map('live');
    if (!map.everything) acceptMap(unit, map);
  } else if (unit.tracking === undefined) await mapFrozen(unit, options, environment, signal);
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

/** True where syncing is enough to have the map on the device. */
export function synced(unit: JobUnit): boolean {
  return unit.mounts.every(({ type }) => type.startsWith('ext'));
}

async function mapFrozen(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<void> {
  await freezeWindow(
    [unit],
    { ...options, preFreezeHook: undefined, postThawHook: undefined, frozenHook: undefined },
    environment,
    silentReport,
    { look: async () => acceptMap(unit, await unit.pool.map('frozen')) },
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
