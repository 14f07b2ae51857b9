/**
 * A full backup from the first read to the last flush. Without a tracker, a live device is copied, compared
 * with the fingerprints of what was sent until little differs, and compared once more while it is frozen.
 */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import { formatBytes } from '../base/bytes.ts';
import type { WarningCode } from '../base/warning-codes.ts';
import { AgentError } from '../base/errors.ts';
import { syncFilesystem } from '../linux/syncfs.ts';
import { freezeWindow } from './freeze-window.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import { refuseNewWriters } from './mounts-now.ts';
import type { MapResult } from './copy/messages.ts';
import { checkPrediction, formatMs, predictFreeze } from './prediction.ts';
import type { JobPhase } from './status.ts';
import { type JobUnit, isLive } from './unit.ts';

/** Comparing passes before the freeze, at most. */
const maximumPasses = 5;

/** Bytes that may differ at the freeze without another comparing pass being worth it. */
const smallDifference = 8 * 1024 * 1024;

export interface ProcedureReport {
  phase(phase: JobPhase): void;
  warn(code: WarningCode, message: string, device?: string): void;
}

export async function runFull(
  units: readonly JobUnit[],
  options: JobOptions,
  environment: JobEnvironment,
  report: ProcedureReport,
  signal: AbortSignal,
): Promise<void> {
  report.phase('mapping');
  await together(units, (unit) => prepareUnit(unit, options, environment, report, signal));
  const live = units.filter(isLive);
  if (live.length > 0) checkPrediction(await predict(live), live, options.maxFreezeMs);

  report.phase('copying');
  await together(units, (unit) => firstPass(unit));
  await together(live, (unit) => compareUntilQuiet(unit, signal));

  if (live.length > 0) await frozenPass(live, options, environment, report, signal);

  report.phase('finishing');
  await refuseNewWriters(units);
  for (const unit of units) settle(unit);

  report.phase('verifying');
  await together(units, (unit) => verify(unit, options.verify, report));
}

/** Runs `work` for all units side by side; the first failure stops the others, and all have ended after it. */
async function together(units: readonly JobUnit[], work: (unit: JobUnit) => Promise<void>): Promise<void> {
  let first: { error: unknown } | undefined;
  await Promise.all(
    units.map(async (unit) => {
      try {
        await work(unit);
      } catch (error) {
        if (first !== undefined) return;
        first = { error };
        for (const other of units) if (other !== unit) other.pool.stop();
      }
    }),
  );
  if (first !== undefined) throw first.error;
}

/**
 * Reads the used map that the copy is planned with. That of a running filesystem is tentative (it is read again
 * in the freeze); where it contradicts itself, the filesystem is frozen for the moment of reading it.
 */
export async function mapUnit(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<void> {
  if (unit.map !== undefined) return;
  await syncMounts(unit);
  let map = await unit.pool.map(isLive(unit) ? 'live' : 'idle');
  if (isLive(unit) && map.everything)
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
  acceptMap(unit, map);
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

function acceptMap(unit: JobUnit, map: MapResult): void {
  unit.map = map;
  unit.status.used_bytes = map.usedBytes;
  if (map.filesystem !== undefined) unit.status.filesystem = map.filesystem.type;
}

async function prepareUnit(
  unit: JobUnit,
  options: JobOptions,
  environment: JobEnvironment,
  report: ProcedureReport,
  signal: AbortSignal,
): Promise<void> {
  await mapUnit(unit, options, environment, signal);
  unit.status.bytes_unsynced = unit.pool.used.bytes();
  if (!isLive(unit)) warnOfMap(unit, report);
  await unit.pool.readZeroMap();
  unit.pool.samples.choose(unit.pool.used);
}

function warnOfMap(unit: JobUnit, report: ProcedureReport): void {
  const { map, pair } = unit;
  if (map === undefined) return;
  for (const message of map.warnings)
    report.warn(map.everything ? 'EVERYTHING_USED' : 'FILESYSTEM_WARNING', message, pair.device.path);
}

/** Predicts from the used blocks and the measured speed of reading and hashing. */
async function predict(live: readonly JobUnit[]): Promise<ReturnType<typeof predictFreeze>> {
  const devices = [];
  for (const unit of live)
    devices.push({ bytes: unit.pool.used.bytes(), rate: await unit.pool.measureReading() });
  return predictFreeze(devices);
}

async function firstPass(unit: JobUnit): Promise<void> {
  unit.status.pass = 1;
  await unit.pool.pass('copy', unit.pool.used);
}

/**
 * While a filesystem is written to, every pass leaves what was written during it. Passes go on while they are
 * getting shorter to good effect: each costs no more than the freeze will.
 */
async function compareUntilQuiet(unit: JobUnit, signal: AbortSignal): Promise<void> {
  let before = Infinity;
  for (let pass = 2; pass <= maximumPasses; pass++) {
    signal.throwIfAborted();
    unit.status.pass = pass;
    const start = unit.pool.counters().different;
    await syncMounts(unit);
    const map = await unit.pool.map('live');
    if (!map.everything) acceptMap(unit, map);
    await unit.pool.pass('compare', unit.pool.used);
    const differed = unit.pool.counters().different - start;
    if (differed <= smallDifference || differed > before / 2) return;
    before = differed;
  }
}

async function frozenPass(
  live: readonly JobUnit[],
  options: JobOptions,
  environment: JobEnvironment,
  report: ProcedureReport,
  signal: AbortSignal,
): Promise<void> {
  checkPrediction(await predict(live), live, options.maxFreezeMs);
  const resendable = new Map(live.map((unit) => [unit, !unit.pool.hasUnconfirmed]));
  const overflows = new Map<JobUnit, number>();
  const start = performance.now();
  await freezeWindow(
    live,
    options,
    environment,
    report,
    () =>
      together(live, async (unit) => {
        unit.status.pass++;
        acceptMap(unit, await unit.pool.map('frozen'));
        const { overflow } = await unit.pool.pass('frozen', unit.pool.used);
        overflows.set(unit, overflow);
      }),
    signal,
  );
  environment.log.info({ ms: performance.now() - start }, 'freeze window is over');
  report.phase('finishing');
  for (const unit of live) {
    warnOfMap(unit, report);
    const overflow = overflows.get(unit) ?? 0;
    if (overflow > 0)
      report.warn(
        'FREEZE_OVERFLOW',
        `${formatBytes(overflow)} more had changed than memory may hold, and went to the target while the filesystem ` +
          `was frozen (${formatMs(unit.status.freeze_ms ?? 0)})`,
        unit.pair.device.path,
      );
    await unit.pool.sendSpool(overflow === 0 && resendable.get(unit) === true);
  }
}

/** What is true of the device's lines once everything has been sent and flushed. */
function settle(unit: JobUnit): void {
  unit.status.read_errors = mergeRecords(unit.pool.readErrors);
  unit.status.bytes_unsynced = 0;
  unit.status.freeze_ms ??= 0;
}

async function verify(unit: JobUnit, level: JobOptions['verify'], report: ProcedureReport): Promise<void> {
  const { pool, pair } = unit;
  if (level === 'none') return;
  if (!pool.facts.abilities.read) {
    report.warn('NOT_VERIFIED', `nothing was read back from ${pool.targetName}`, pair.device.path);
    return;
  }
  await pool.checkSamples();
  if (level === 'sample') return;
  const { mismatches, firstMismatch } = await pool.pass('verify', pool.used);
  if (mismatches > 0)
    throw new AgentError(
      'TARGET_MISMATCH',
      `${pool.targetName} returns other data than was written to it in ${mismatches} places, the first at ${firstMismatch}`,
      { hint: 'do not trust this image; check the disk and the memory of the receiver' },
    );
}

/** Sorted, and joined where passes met the same bad sectors. */
function mergeRecords(
  records: readonly { offset: number; length: number }[],
): { offset: number; length: number }[] {
  const result: { offset: number; length: number }[] = [];
  for (const record of [...records].sort((a, b) => a.offset - b.offset)) {
    const last = result.at(-1);
    if (last !== undefined && record.offset <= last.offset + last.length)
      last.length = Math.max(last.length, record.offset + record.length - last.offset);
    else result.push({ ...record });
  }
  return result;
}
