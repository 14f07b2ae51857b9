/**
 * The outcome of the record of the last shutdown. `dattod reboot resume` writes it to the run directory. That is a
 * tmpfs, so the outcome is always about this boot. The daemon reads it once, when it starts.
 */
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { unlessAbsent, writingAsync } from '../../base/files.ts';
import type { StartTracking } from '../../tracking/tracker-registry.ts';
import type { RebootRecord } from '../../tracking/reboot/shutdown-record.ts';

export interface DeviceOutcome {
  readonly device: string;
  readonly uuid: string;
  /** The epoch that continues; null if none does. If `why` is not null too, the epoch only may continue, see there. */
  readonly epoch: string | null;
  /**
   * Why it does not continue; null if it does. If `epoch` is not null too, `dattod reboot resume` did not finish this
   * device. Then the present epoch of its tracker decides.
   */
  readonly why: string | null;
}

export interface RebootOutcome {
  /** When the machine was shut down, ISO 8601; null if no record told it. */
  readonly shutdown: string | null;
  /** Why tracking could not continue on any device; null otherwise. */
  readonly why: string | null;
  readonly devices: readonly DeviceOutcome[];
}

const fileName = 'reboot.json';

/** Writes the outcome. If the process is killed, either this outcome or the one before is there. */
export async function writeOutcome(runDirectory: string, outcome: RebootOutcome): Promise<void> {
  await mkdir(runDirectory, { recursive: true, mode: 0o700 });
  const path = join(runDirectory, fileName);
  await writingAsync(path, async () => {
    await writeFile(`${path}.new`, `${JSON.stringify(outcome, undefined, 2)}\n`, { mode: 0o600 });
    await rename(`${path}.new`, path);
  });
}

/**
 * Reads the outcome. Undefined if no `dattod reboot resume` has run in this boot. Throws FILE_ERROR if the file cannot
 * be read: without the outcome the epochs would continue, and writes of a boot loader would be missed.
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

/** Describes a device after the reboot: its epoch continued (`epoch` is the present one), or why not. */
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
 * Returns the outcome for a boot in which `dattod reboot resume` has reported none, although a record lies there.
 * Either it did not run, or it was ended before it had read the record.
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

/**
 * Wraps `start`: a device whose tracking began again after the reboot gets the reason. Its next differential reports
 * that reason.
 */
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
