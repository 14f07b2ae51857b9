/**
 * Everything that is checked before a backup is answered (design.md, step 1). Nothing is written, frozen or
 * sent here; what was opened for the checks is kept for the job, or given back where a check fails.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, rm } from 'node:fs/promises';
import { MiB } from '../base/bytes.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import type { Device } from '../devices/device.ts';
import { listDevices } from '../devices/inventory.ts';
import { type MountedFilesystem, type Stack, filesystemsOn, readStack } from '../devices/stacking.ts';
import { BackupJob, closeUnits } from './backup-job.ts';
import { CopyPool } from './copy/pool.ts';
import { makeFingerprints } from './fingerprint-files.ts';
import { freezable } from './freezable.ts';
import type { DevicePair, JobEnvironment, JobOptions, PreparedJob, PrepareJob } from './job.ts';
import { checkPrediction, predictFreeze } from './prediction.ts';
import { mapUnit } from './procedure.ts';
import { refuseSelfTarget } from './self-target.ts';
import type { JobWarning } from './status.ts';
import { parseTarget, targetName } from './targets.ts';
import { type JobUnit, initialStatus, isLive } from './unit.ts';

/** What frozen passes of one job may keep in memory, all threads together. */
const spoolBytes = 32 * MiB;

export const prepareJob: PrepareJob = async (request, environment): Promise<PreparedJob> => {
  const { uuid, pairs, options } = request;
  if (pairs.length === 0)
    throw new AgentError('NO_DEVICES', 'No devices given to backup', {
      hint: 'name one with --device-pair DEVICE HOST PORT; dattocli devices lists them',
    });
  refuseOverlaps(pairs);
  const [devices, stack] = await Promise.all([listDevices(), readStack()]);
  const warnings: JobWarning[] = [];
  const units: JobUnit[] = [];
  try {
    for (const [index, pair] of pairs.entries())
      units.push(
        await prepareUnit(pair, {
          uuid,
          index,
          pairs: pairs.length,
          devices,
          stack,
          options,
          environment,
          warnings,
        }),
      );
    await refuseLongFreeze(units, options, environment);
  } catch (error) {
    await closeUnits(units);
    throw error;
  }
  return new BackupJob(uuid, units, options, environment, warnings);
};

function refuseOverlaps(pairs: readonly DevicePair[]): void {
  for (const [i, { device, target }] of pairs.entries())
    for (const other of pairs.slice(0, i)) {
      if (device.path === other.device.path)
        throw new AgentError('BAD_USAGE', `${device.path} is given twice`, {
          hint: 'one target per device and job',
        });
      if (target === other.target)
        throw new AgentError(
          'BAD_USAGE',
          `${target} is given for both ${other.device.path} and ${device.path}`,
          {
            hint: 'each device needs an image of its own',
          },
        );
    }
}

interface UnitContext {
  readonly uuid: string;
  readonly index: number;
  readonly pairs: number;
  readonly devices: readonly Device[];
  readonly stack: Stack;
  readonly options: JobOptions;
  readonly environment: JobEnvironment;
  readonly warnings: JobWarning[];
}

async function prepareUnit(pair: DevicePair, context: UnitContext): Promise<JobUnit> {
  const { devices, stack, options, environment, warnings } = context;
  const { device } = pair;
  const target = parseTarget(pair.target);
  if (!device.backup.possible)
    throw new AgentError('DEVICE_BUSY', `${device.path} cannot be backed up: ${device.backup.how}`);
  // A file target is made when it is opened, so this comes first for it.
  if (target.kind === 'file') await refuseSelfTarget(target, device, stack);
  const mounts = writableMounts(device, stack, warnings);
  const hold = mounts.length === 0 ? await holdIdle(device, warnings) : undefined;
  const needsFingerprints = mounts.length > 0 || options.verify === 'full';
  const threads = context.pairs > 2 ? 1 : options.connections;
  let pool: CopyPool | undefined;
  let fingerprintPath: string | undefined;
  try {
    fingerprintPath = needsFingerprints
      ? await makeFingerprints(environment.stateDirectory, `${context.uuid}-${context.index}`, device.size)
      : undefined;
    pool = new CopyPool({
      sourcePath: device.path,
      deviceSize: device.size,
      livePartitions: livePartitions(device, devices),
      target,
      threads,
      fingerprintPath,
      rate: options.rate === undefined ? undefined : options.rate / context.pairs,
      onReadError: options.onReadError,
      spoolBytes: Math.floor(spoolBytes / threads / context.pairs),
      reconnectMs: options.reconnectMs,
    });
    const status = initialStatus(pair, targetName(target));
    const unit: JobUnit = { pair, pool, mounts, hold, fingerprintPath, map: undefined, status };
    await pool.open();
    if (target.kind === 'nbd') await refuseSelfTarget(target, device, stack);
    return unit;
  } catch (error) {
    await pool?.close();
    await hold?.close();
    if (fingerprintPath !== undefined) await rm(fingerprintPath, { force: true });
    throw error;
  }
}

/** The partitions' own maps are read as live or frozen where they are mounted themselves. */
function livePartitions(disk: Device, devices: readonly Device[]): number[] {
  return devices.flatMap(({ partition, mounts }) =>
    partition?.disk === disk.path && mounts.some((mount) => !mount.readOnly) ? [partition.start] : [],
  );
}

/**
 * Writable filesystems on the device or on anything that lies on it. Those that cannot be frozen become
 * warnings.
 */
function writableMounts(device: Device, stack: Stack, warnings: JobWarning[]): MountedFilesystem[] {
  const writable = filesystemsOn(stack, [device.kernelName]).filter((mount) => !mount.readOnly);
  for (const mount of writable)
    if (!freezable(mount.type))
      warnings.push({
        code: 'NOT_FROZEN',
        device: device.path,
        message: `${mount.type} at ${mount.path} cannot be frozen; what is written to it during the backup may be torn`,
      });
  return writable.filter((mount) => freezable(mount.type));
}

/**
 * An idle device is opened exclusively for the time of the job, so that nobody mounts it meanwhile. A device
 * that somebody holds without a mount of ours to freeze (a virtual machine, a database) is copied with a warning.
 */
async function holdIdle(device: Device, warnings: JobWarning[]): Promise<FileHandle | undefined> {
  if (device.kind === 'file') return undefined;
  try {
    return await open(device.path, constants.O_RDONLY | constants.O_EXCL);
  } catch (error) {
    const readOnly =
      device.readOnly || (device.mounts.length > 0 && device.mounts.every((mount) => mount.readOnly));
    if (errnoCode(error) !== 'EBUSY') throw error;
    if (!readOnly && device.filesystem?.type !== 'swap')
      warnings.push({
        code: 'IN_USE',
        device: device.path,
        message:
          `${device.path} is in use by something that cannot be frozen` +
          (device.holders.length > 0 ? ` (${device.holders.join(', ')})` : '') +
          '; what is written to it during the backup may be torn',
      });
    return undefined;
  }
}

/** Refuses here, before anything is sent, what could only be refused later. */
async function refuseLongFreeze(
  units: readonly JobUnit[],
  options: JobOptions,
  environment: JobEnvironment,
): Promise<void> {
  const live = units.filter(isLive);
  const predictions = [];
  for (const unit of live) {
    await mapUnit(unit, options, environment, new AbortController().signal);
    predictions.push({ bytes: unit.pool.used.bytes(), rate: await unit.pool.measureReading() });
  }
  if (live.length > 0) checkPrediction(predictFreeze(predictions), live, options.maxFreezeMs);
}
