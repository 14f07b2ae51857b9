/**
 * Everything that is checked before a backup is answered (design.md, step 1). Nothing is written, frozen or
 * sent here; what was opened for the checks is kept for the job, or given back where a check fails.
 */
import { AgentError } from '../base/errors.ts';
import { readStack } from '../devices/stacking.ts';
import { checkHook } from '../freeze/hooks.ts';
import { availableMemory, giveBackMemory } from '../linux/memory.ts';
import { BackupJob } from './backup-job.ts';
import { affordedConnections } from './memory-need.ts';
import { SpoolRoom, roomIn } from './copy/spool-room.ts';
import { spillPlace } from './spill-place.ts';
import type { DevicePair, JobEnvironment, JobOptions, PreparedJob, PrepareJob } from './job.ts';
import { checkPrediction, predictFreeze } from './prediction.ts';
import { prepareUnit } from './prepare-unit.ts';
import { runBackup } from './procedure.ts';
import { mapUnit } from './mapping.ts';
import type { JobWarning } from './status.ts';
import { type JobUnit, isLive } from './unit.ts';
import { isVaultLocation } from '../vault/store/location.ts';
import { VaultJobs } from './vault-job.ts';
import { prepareVerification } from './verification.ts';

export const prepareJob: PrepareJob = async (request, environment): Promise<PreparedJob> => {
  const { uuid, kind, pairs, devices, options, signal = new AbortController().signal } = request;
  if (pairs.length === 0)
    throw new AgentError('NO_DEVICES', 'No devices given to backup', {
      hint: 'name one with --device-pair DEVICE HOST PORT; dattocli devices lists them',
    });
  refuseOverlaps(pairs);
  if (kind === 'verify') return prepareVerification({ ...request, kind, signal }, environment);
  for (const hook of [options.preFreezeHook, options.frozenHook, options.postThawHook])
    if (hook !== undefined) await checkHook(hook);
  const stack = await readStack();
  const warnings: JobWarning[] = [];
  const units: JobUnit[] = [];
  const vaults = new VaultJobs(signal);
  giveBackMemory();
  const available = await availableMemory();
  const connections = affordedConnections(
    pairs.map(({ device, target }) => ({ size: device.size, intoVault: isVaultLocation(target) })),
    pairs.length > 2 ? 1 : options.connections,
    available,
  );
  const room = SpoolRoom.create(
    environment.spool?.memory ?? roomIn(available.bytes),
    environment.spool?.files === false
      ? undefined
      : await spillPlace(environment.stateDirectory, pairs, stack),
  );
  const undo = async (): Promise<void> => {
    await Promise.all(units.map((unit) => unit.discard()));
    await vaults.end();
  };
  try {
    for (const [number, pair] of pairs.entries())
      units.push(
        await prepareUnit(pair, {
          job: uuid,
          number,
          kind,
          pairs: pairs.length,
          devices,
          stack,
          options,
          environment,
          warnings,
          vaults,
          room,
          connections,
          signal,
        }),
      );
    await refuseLongFreeze(units, options, environment, signal);
    signal.throwIfAborted();
  } catch (error) {
    await undo();
    throw error;
  }
  return new BackupJob({
    uuid,
    kind,
    units,
    environment,
    warnings,
    close: () => vaults.end(),
    work: (report, signal, status) =>
      runBackup({ uuid, status }, units, options, environment, report, signal),
  });
};

function refuseOverlaps(pairs: readonly DevicePair[]): void {
  for (const [i, { device, target }] of pairs.entries())
    for (const other of pairs.slice(0, i)) {
      if (device.path === other.device.path)
        throw new AgentError('BAD_USAGE', `${device.path} is given twice`, {
          hint: 'one target per device and job',
        });
      if (target === other.target && !isVaultLocation(target))
        throw new AgentError(
          'BAD_USAGE',
          `${target} is given for both ${other.device.path} and ${device.path}`,
          {
            hint: 'each device needs an image of its own',
          },
        );
    }
}

/** Refuses here, before anything is sent, what could only be refused later. */
async function refuseLongFreeze(
  units: readonly JobUnit[],
  options: JobOptions,
  environment: JobEnvironment,
  signal: AbortSignal,
): Promise<void> {
  const untracked = units.filter(
    (unit) => isLive(unit) && unit.tracking === undefined && unit.snapshot === undefined,
  );
  const predictions = [];
  for (const unit of untracked) {
    await mapUnit(unit, options, environment, { phase: () => undefined, warn: () => undefined }, signal);
    predictions.push({ bytes: unit.pool.used.bytes(), rate: await unit.pool.measureReading() });
  }
  if (untracked.length > 0) {
    const mapMs = untracked.reduce((sum, unit) => sum + unit.mapMs, 0);
    checkPrediction(predictFreeze(predictions, mapMs), untracked, options.maxFreezeMs);
  }
}
