/** `dattod reboot save|resume|prepare`: the units of packaging/ run it at shutdown and early in a boot. */
import { readFileSync } from 'node:fs';
import { readFile, realpath, stat } from 'node:fs/promises';
import { basename } from 'node:path';
import { Command, CommanderError } from 'commander';
import { AgentError } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { TrackerRegistry } from '../../tracking/tracker-registry.ts';
import { prepareRecordDevice, removeRecord } from '../../tracking/reboot/place.ts';
import type { DaemonDependencies } from '../daemon-dependencies.ts';
import { readConfig, recordPlace } from '../config.ts';
import { defaultSettings } from '../settings.ts';
import { type DeviceOutcome, readOutcome, writeOutcome, type RebootOutcome } from './outcome.ts';
import { resumeAfterReboot } from './resume.ts';
import { type Saved, saveReboot } from './save.ts';
import { writeOut } from '../../base/visible.ts';

interface Values {
  stateDir: string;
  runDir: string;
  pinDir: string;
  config: string;
  late?: true;
  wait?: string;
  limit?: string;
}

type Say = (line: string) => void;

/** Builds the parser. `write` gets the texts of `--help`. */
export function rebootCommand(
  run: (what: 'save' | 'resume' | 'prepare', values: Values, place?: string) => Promise<void>,
  write: (text: string) => void,
): Command {
  const configure = (command: Command): Command =>
    command
      .exitOverride()
      .allowExcessArguments(false)
      .configureOutput({ writeOut: write, writeErr: () => undefined, getOutHelpWidth: () => 100 });
  const withPlaces = (command: Command): Command =>
    configure(command)
      .option('--state-dir <path>', 'as for dattod', defaultSettings.stateDirectory)
      .option('--run-dir <path>', 'as for dattod', defaultSettings.runDirectory)
      .option('--pin-dir <path>', 'as for dattod', defaultSettings.pinDirectory)
      .option('--config <path>', 'as for dattod', defaultSettings.config);
  return configure(new Command('dattod reboot'))
    .description('Lets incremental backups continue over a clean reboot (docs/tracking.md).')
    .addCommand(
      withPlaces(new Command('save'))
        .description(
          'at shutdown: records the writes to filesystems that are not mounted for writing any more; adds to the record of this shutdown',
        )
        .option('--late', 'only if the record has a device of its own, which can be written to the end')
        .action((values: Values) => run('save', values)),
    )
    .addCommand(
      withPlaces(new Command('resume'))
        .description('early in the boot: continues tracking if nothing can have been written since')
        .option('--wait <seconds>', 'how long to wait for recorded devices that do not exist yet', '10')
        .option(
          '--limit <seconds>',
          'how long all of it may take; less than the time limit of the unit',
          '60',
        )
        .action((values: Values) => run('resume', values)),
    )
    .addCommand(
      configure(new Command('prepare'))
        .description('makes an empty partition the place of the record; its content is lost')
        .argument('<device>')
        .action((device: string) => run('prepare', {} as Values, device)),
    );
}

/** Runs `dattod reboot` with its arguments. Resolves with the exit code. */
export async function runReboot(
  args: readonly string[],
  load: () => Promise<DaemonDependencies>,
  say: Say = (line) => writeOut(`${line}\n`),
): Promise<number> {
  const command = rebootCommand(async (what, values, device) => {
    if (process.getuid?.() !== 0)
      throw new AgentError('NO_PERMISSION', 'dattod needs root, to read block devices', {
        hint: 'run it with sudo',
      });
    if (what === 'prepare') await prepare(device ?? '');
    else await work(what, values, load, say);
  }, writeOut);
  try {
    await command.parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    throw new AgentError('BAD_USAGE', error.message.replace(/^error: /, '') || 'save, resume or prepare?', {
      hint: 'see dattod reboot --help',
    });
  }
}

/**
 * Prepares a device for the record. Throws NOT_SUPPORTED for a kind of device that is removed before root is recorded,
 * and the errors of `prepareRecordDevice`.
 */
async function prepare(path: string): Promise<void> {
  const name = basename(await realpath(path).catch(() => path));
  if (/^(dm-|md)/.test(name))
    throw new AgentError(
      'NOT_SUPPORTED',
      `${path} is ${name}, which systemd-shutdown removes before root can be recorded`,
      { hint: 'give a partition of a disk; without reboot_record all but root is recorded in a file' },
    );
  await prepareRecordDevice(path);
}

async function work(
  what: 'save' | 'resume',
  values: Values,
  load: () => Promise<DaemonDependencies>,
  say: Say,
): Promise<void> {
  const config = await readConfig(values.config, false);
  const place = recordPlace(config, values.stateDir);
  if (what === 'save' && values.late === true && !(await isBlockDevice(place))) return;
  if (!config.reboot_continuity) {
    await removeRecord(place);
    if (what === 'resume')
      await writeOutcome(values.runDir, {
        shutdown: null,
        why: 'the configuration says "reboot_continuity": false',
        devices: [],
      });
    return;
  }
  const { trackerCandidates, listDevices } = await load();
  const trackers = new TrackerRegistry(
    trackerCandidates({ pinDirectory: values.pinDir, runDirectory: values.runDir }),
  );
  const bootId = (await readFile('/proc/sys/kernel/random/boot_id', 'latin1')).trim();
  try {
    if (what === 'save') {
      const saved = await saveReboot({
        trackers,
        devices: await listTracked(listDevices, trackers),
        bootId,
        place,
      });
      describeSaved(saved, say);
    } else {
      const outcome = await resumeAfterReboot({
        ...{ trackers, listDevices, bootId, place, bootedAt: bootedAt() },
        waitMs: seconds('--wait', values.wait) * 1000,
        limitMs: seconds('--limit', values.limit) * 1000,
        report: (found) => writeOutcome(values.runDir, found),
      });
      // Keeps the outcome that an earlier run in this boot has reported, if this run had nothing to use.
      if (outcome.devices.length === 0 && (await readOutcome(values.runDir)) === undefined)
        await writeOutcome(values.runDir, outcome);
      describeResumed(outcome, say);
      // Closing would wait for devices that took too long. The end of the process closes everything.
      if (outcome.devices.some(isUnfinished)) return;
    }
  } catch (thrown) {
    await trackers.close();
    throw thrown;
  }
  await trackers.close();
}

function isUnfinished({ epoch, why }: DeviceOutcome): boolean {
  return epoch !== null && why !== null;
}

function seconds(option: string, text = ''): number {
  const value = Number(text);
  if (text.trim() !== '' && value >= 0 && value <= 86_400) return value;
  throw new AgentError('BAD_USAGE', `${option} must be a number of seconds from 0 to 86400, not "${text}"`);
}

/**
 * Lists the devices. Lists again, twice at most, if a tracked device did not answer in time: a busy machine must not
 * lose its tracking.
 */
async function listTracked(
  listDevices: DaemonDependencies['listDevices'],
  trackers: Pick<TrackerRegistry, 'tracked'>,
): Promise<readonly Device[]> {
  const tracked = await trackers.tracked();
  for (let tries = 3; ; tries--) {
    const devices = await listDevices();
    const silent = devices.some(
      ({ filesystem, major, minor }) =>
        filesystem === undefined && tracked.some((each) => each.major === major && each.minor === minor),
    );
    if (!silent || tries === 1) return devices;
  }
}

function describeSaved({ devices, leftOut }: Saved, say: Say): void {
  for (const { path } of devices) say(`${path}: recorded, to be taken up again`);
  for (const { path, why } of leftOut) say(`${path}: not recorded: ${why}`);
}

function describeResumed({ why, devices }: RebootOutcome, say: Say): void {
  if (why !== null) say(why);
  for (const each of devices)
    say(`${each.device}: ${each.why === null ? 'tracking goes on' : `tracking does not go on: ${each.why}`}`);
}

async function isBlockDevice(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isBlockDevice(),
    () => false,
  );
}

/** Start of this boot, milliseconds since 1970. Computed from the uptime, because the clock may have been set since. */
function bootedAt(): number {
  const [seconds] = readFileSync('/proc/uptime', 'latin1').split(' ');
  return Date.now() - Number(seconds) * 1000;
}
