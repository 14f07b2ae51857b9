/** Reading the used map that a pass is planned with. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { syncFilesystem } from '../linux/syncfs.ts';
import type { MapResult } from './copy/messages.ts';
import { freezeWindow } from './freeze-window.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import { type JobUnit, isLive } from './unit.ts';

/**
 * Reads the first map. That of a running filesystem is tentative (it is read again in the freeze); where it
 * contradicts itself, the filesystem is frozen for the moment of reading it. So it is where tracking has just
 * begun: what was under way to the device before the tracker looked has arrived when the freeze has (kernel
 * notes: a bio submitted before the programs were attached completes unseen).
 */
export async function mapUnit(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<void> {
  if (unit.map !== undefined) return;
  if (!isLive(unit)) {
    acceptMap(unit, await unit.pool.map('idle'));
    return;
  }
  await syncMounts(unit);
  const drain = unit.tracking !== undefined && unit.plan.kind !== 'incremental';
  let map = drain ? undefined : await unit.pool.map('live');
  if (map === undefined || map.everything)
    await freezeWindow(
      [unit],
      { ...options, preFreezeHook: undefined, postThawHook: undefined, frozenHook: undefined },
      environment,
      silentReport,
      async () => {
        map = await unit.pool.map('frozen');
      },
      signal,
    );
  if (map !== undefined) acceptMap(unit, map);
}

/** Reads the tentative map anew; keeps the old one where the new one contradicts itself. */
export async function remap(unit: JobUnit): Promise<void> {
  if (!isLive(unit)) return;
  await syncMounts(unit);
  const map = await unit.pool.map('live');
  if (!map.everything) acceptMap(unit, map);
}

export function acceptMap(unit: JobUnit, map: MapResult): void {
  unit.map = map;
  unit.status.used_bytes = map.usedBytes;
  if (map.filesystem !== undefined) unit.status.filesystem = map.filesystem.type;
}

/** What is only in the page cache is neither on the device nor in the map; each pass is to find what it can. */
async function syncMounts(unit: JobUnit): Promise<void> {
  for (const { path } of unit.mounts) {
    const directory = await open(path, constants.O_RDONLY);
    try {
      await syncFilesystem(directory.fd);
    } finally {
      await directory.close();
    }
  }
}

const silentReport = { phase: () => undefined, warn: () => undefined };
