/**
 * What came of the record of the last shutdown, for the daemon that starts after it: written by `dattod reboot resume`
 * to the run directory (a tmpfs, so that it is about this boot), read by the daemon once.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { unlessAbsent, writingAsync } from '../../base/files.ts';
import type { StartTracking } from '../../tracking/choose.ts';
import type { RebootRecord } from '../../tracking/reboot/record.ts';

export interface DeviceOutcome {
  readonly device: string;
  readonly uuid: string;
  /** The epoch that goes on; null where none does. If `why` is not null: that may go on, see there. */
  readonly epoch: string | null;
  /**
   * Why it does not; null where it does. With an epoch: `dattod reboot resume` did not come to the end of this device, so
   * that the epoch of its tracker decides.
   */
  readonly why: string | null;
}

export interface RebootOutcome {
  /** When the machine was shut down, ISO 8601; null where no record said. */
  readonly shutdown: string | null;
  /** Why nothing could be taken up again at all. */
  readonly why: string | null;
  readonly devices: readonly DeviceOutcome[];
}

const fileName = 'reboot.json';

/** Durable enough for this boot: a process that is killed leaves this one or the one before. */
export async function writeOutcome(runDirectory: string, outcome: RebootOutcome): Promise<void> {
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  const path = join(runDirectory, fileName);
  await writingAsync(path, async () => {
    await writeFile(`${path}.new`, `${JSON.stringify(outcome, undefined, 2)}\n`, { mode: 0o600 });
    await rename(`${path}.new`, path);
  });
}

/**
 * Undefined if this boot has had no `dattod reboot resume`. Throws FILE_ERROR if what came of it cannot be read: without it
 * the epochs go on, and what a boot loader wrote is missed.
 */
export async function readOutcome(runDirectory: string): Promise<RebootOutcome | undefined> {
  const path = join(runDirectory, fileName);
  const text = await unlessAbsent(path, readFile(path, 'utf8'));
  try {
    return text === undefined ? undefined : (JSON.parse(text) as RebootOutcome);
  } catch (cause) {
    throw new AgentError('FILE_ERROR', `${path} is not what 'dattod reboot resume' writes`, {
      hint: "run 'dattod --remove-tracking', so that the next backups compare, remove the file, and start again",
      cause,
    });
  }
}

/** What is said of a device: that its epoch goes on (`epoch` is the present one), or why not. */
export function describeOutcome(
  outcome: RebootOutcome | undefined,
  uuid: string,
  epoch: string | undefined,
): string | undefined {
  if (outcome === undefined) return undefined;
  const found = uuid === '' ? undefined : outcome.devices.find((device) => device.uuid === uuid);
  const reboot = outcome.shutdown === null ? 'the reboot' : `the reboot of ${outcome.shutdown}`;
  if (found !== undefined && found.epoch !== null && found.epoch === epoch) return `continued over ${reboot}`;
  if (found !== undefined && found.why === null) return undefined;
  return `not continued over ${reboot}: ${found?.why ?? outcome.why ?? 'it was not tracked then'}`;
}

/**
 * For a boot in which no `dattod reboot resume` has told what came of the record, though one lies there: it did not run,
 * or it was ended before it had read the record.
 */
export function outcomeOfWaiting(record: Pick<RebootRecord, 'at'>, user: string | undefined): RebootOutcome {
  const what =
    user === undefined
      ? "did not run in this boot, or was ended by its unit's time limit before it had read the record"
      : 'began to use it in a boot and did not come to an end';
  return {
    shutdown: new Date(record.at).toISOString(),
    why: `its record was not used before the filesystems were mounted: 'dattod reboot resume' ${what}`,
    devices: [],
  };
}

/** Gives a device that is tracked anew since the reboot the reason for it, which its next differential tells. */
export function withReasonOfReboot(start: StartTracking, outcome: RebootOutcome | undefined): StartTracking {
  if (outcome === undefined) return start;
  return async (device, wish) => {
    const started = await start(device, wish);
    if (started.tracker === undefined || started.doubt !== undefined) return started;
    if (outcome.devices.some(({ epoch }) => epoch === started.epoch.id)) return started;
    const reason = describeOutcome(outcome, device.uuid, started.epoch.id);
    return reason === undefined ? started : { ...started, doubt: `tracking was ${reason}` };
  };
}
