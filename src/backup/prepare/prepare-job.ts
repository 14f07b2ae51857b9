/**
 * All checks before a backup is accepted (design.md, step 1). Nothing is written, frozen or sent here. Resources opened
 * for the checks are kept for the job, or closed if a check fails.
 */
import { AgentError } from '../../base/errors.ts';
import { readStack } from '../../devices/stacking.ts';
import { checkHook } from '../../freeze/hooks.ts';
import { availableMemory, giveBackMemory } from '../../linux/memory.ts';
import { BackupJob } from '../run/backup-job.ts';
import { affordedConnections } from './memory-need.ts';
import { SpoolRoom, roomIn } from '../copy/spool-room.ts';
import { spillPlace } from './spill-place.ts';
import type { DevicePair, PreparedJob, PrepareJob } from '../job.ts';
import { refuseLongFreeze } from '../run/predict-freeze.ts';
import { prepareDevice } from './prepare-device.ts';
import { runBackup } from '../run/run-backup.ts';
import { readFirstMap } from '../run/read-map.ts';
import type { JobWarning } from '../../api/job-status.ts';
import type { DeviceBackup } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import { silentReporter } from '../job-reporter.ts';
import { isVaultLocation } from '../../vault/store/location.ts';
import { VaultJobs } from '../vault/vault-job.ts';
import { prepareVerification } from './prepare-verification.ts';

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
  const job = { uuid, kind, options, environment };
  const warnings: JobWarning[] = [];
  const backups: DeviceBackup[] = [];
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
    await Promise.all(backups.map((backup) => backup.discard()));
    await vaults.end();
  };
  try {
    for (const [number, pair] of pairs.entries())
      backups.push(
        await prepareDevice(pair, {
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
    await refuseEarly(backups, { ...job, reporter: silentReporter, signal });
    signal.throwIfAborted();
  } catch (error) {
    await undo();
    throw error;
  }
  return new BackupJob({
    uuid,
    kind,
    devices: backups,
    environment,
    warnings,
    close: () => vaults.end(),
    work: (reporter, signal) => runBackup(backups, { ...job, reporter, signal }),
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

/** Refuses a freeze that is too long before anything is sent, if that is known now. */
async function refuseEarly(backups: readonly DeviceBackup[], job: JobContext): Promise<void> {
  const compared = backups.filter(({ instant, ledger }) => instant.kind === 'frozen' && !ledger.isTracked);
  for (const backup of compared) await readFirstMap(backup, job);
  await refuseLongFreeze(compared, job.options.maxFreezeMs);
}
