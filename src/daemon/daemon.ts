/**
 * A daemon from start to end, without the process around it (run.ts). The order of the steps matters. The daemon first
 * ensures that it is the only instance. It then thaws filesystems that an earlier daemon left frozen, since log and
 * history may lie on them. Log and history follow. The socket comes last, so every client finds everything working.
 */
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError, errnoCode, toAgentError } from '../base/errors.ts';
import { createLog, type Log } from '../base/log.ts';
import { agentVersion } from '../base/version.ts';
import { shownPoints } from '../restore/mount/mount-record.ts';
import { TrackerRegistry } from '../tracking/tracker-registry.ts';
import { createApi, listen } from './api.ts';
import type { DaemonDependencies } from './daemon-dependencies.ts';
import { type DaemonConfig, recordPlace } from './config.ts';
import type { EventStream } from './event-stream.ts';
import { History } from './history.ts';
import { claimInstance } from './instance.ts';
import { JobTable } from './jobs.ts';
import { LogFile } from './log-file.ts';
import { readContinuity } from './reboot/armed.ts';
import { markBootLoaderFiles, untrackFirst } from './reboot/boot-loader.ts';
import { readOutcome, withReasonOfReboot } from './reboot/outcome.ts';
import { checkUnusedRecord } from './reboot/unused.ts';
import type { DaemonSettings } from './settings.ts';
import { listChains, Tracking } from './tracking.ts';

/** How long clients have to fetch their answers at the end, milliseconds. */
const drainMs = 1_000;

export interface Daemon {
  readonly log: Log;
  /** Closes the log file and continues in a new one. */
  reopenLog(): void;
  /** Called before a defect ends the process: thaws what it can, then writes the log, even if something is frozen. */
  crash(): Promise<void>;
  /** Cancels the jobs, thaws and closes everything. Resolves with false if a job did not end in time. */
  stop(reason: string): Promise<boolean>;
}

export interface DaemonOptions {
  /** How long cancelled jobs have to end, milliseconds. Default 30000. */
  readonly cancelMs?: number;
}

/** Starts everything. On an error, undoes the steps that were done. */
export async function createDaemon(
  dependencies: DaemonDependencies,
  settings: DaemonSettings,
  config: DaemonConfig,
  options: DaemonOptions = {},
): Promise<Daemon> {
  const started = performance.now();
  // If a step throws, the steps before it are undone.
  await using steps = new AsyncDisposableStack();
  makeDirectory(settings.runDirectory, '--run-dir');
  const { pinDirectory, runDirectory, stateDirectory } = settings;
  const trackers = new TrackerRegistry(dependencies.trackerCandidates({ pinDirectory, runDirectory }));
  const instance = claimInstance(settings.pidFile, dependencies.tryLock);
  steps.defer(() => instance.release());
  claimTracking(trackers, pinDirectory);
  steps.defer(() => trackers.close());
  const logFile = new LogFile(settings.logFile);
  steps.defer(() => logFile.close());
  const log = createLog(logFile, settings.logLevel);
  await dependencies.thawLeftovers(settings.runDirectory, log);
  logFile.open();

  makeDirectory(settings.stateDirectory, '--state-dir');
  const history = new History(join(settings.stateDirectory, 'history.sqlite'), {
    limit: config.history_limit,
    bootId: readBootId(),
    onError: (err) => log.error({ err }, 'the job history could not be written'),
  });
  steps.defer(() => history.close());
  for (const { uuid, error } of history.failInterrupted(new Date()))
    log.warn({ job: uuid, error }, 'job was interrupted');

  // Runs in the background: lvm2 may be busy with other work.
  void dependencies.removeLeftoverSnapshots?.(settings.stateDirectory, log);

  const waiting = await (config.reboot_continuity
    ? checkUnusedRecord(recordPlace(config, stateDirectory), readBootId(), log)
    : undefined);
  const resumed = (await readOutcome(runDirectory)) ?? waiting;
  const marks = resumed && (await markBootLoaderFiles(resumed, dependencies.listDevices, trackers, log));
  const reboot = marks?.outcome;
  const start = withReasonOfReboot(trackers.start, reboot);
  const findDevice: DaemonDependencies['findDevice'] = async (devices, name) =>
    dependencies.findDevice(devices, name, await shownPoints(runDirectory));
  // The image that a job makes in its freeze shows that job as freezing. A restored machine knows the job by that.
  const atFreeze = {
    hold: () => {
      jobs.record();
      history.hold();
    },
    release: () => {
      history.release();
      jobs.record();
    },
  };
  const jobs: JobTable = new JobTable({
    dependencies: { ...dependencies, findDevice },
    history,
    environment: {
      log,
      holdWhileFrozen: [logFile, atFreeze],
      startTracking: untrackFirst(start, marks?.stillTracked ?? new Set(), trackers),
      vaults: { vaults: config.vaults, stateDirectory },
      stateDirectory,
      runDirectory,
      shownPoints: () => shownPoints(runDirectory),
    },
    defaults: config.job_options,
    log,
  });
  const streams = new Set<EventStream>();
  const uptime = () => (performance.now() - started) / 1000;
  const { listDevices } = dependencies;
  const api = createApi(
    {
      jobs,
      listDevices,
      uptime,
      streams,
      tracking: new Tracking({
        ...{ trackers, jobs, listDevices, findDevice, log, reboot },
        continuity: () => readContinuity(config.reboot_continuity, recordPlace(config, stateDirectory)),
      }),
      chains: () => listChains(join(stateDirectory, 'chains')),
    },
    log,
  );
  await listen(api, settings.socket);
  log.info({ version: agentVersion, pid: process.pid, socket: settings.socket }, 'dattod is ready');

  const close = async () => {
    for (const stream of streams) stream.end();
    const impatience = setTimeout(() => api.server.closeAllConnections(), drainMs);
    await api.close();
    clearTimeout(impatience);
  };
  const opened = steps.move();
  return {
    log,
    crash: async () => {
      await dependencies.thawLeftovers(settings.runDirectory, log).catch(() => undefined);
      logFile.force();
    },
    reopenLog: () => logFile.reopen(),
    stop: async (reason) => {
      log.info({ reason, running: jobs.runningCount }, 'dattod is stopping');
      const tidy = await within(options.cancelMs ?? 30_000, jobs.shutDown(reason));
      if (!tidy) log.error('a job did not end in time');
      await close();
      // Pinned tracking continues in the kernel.
      await trackers.close().catch((err: unknown) => log.error({ err }, 'a tracker could not be closed'));
      await dependencies.thawLeftovers(settings.runDirectory, log);
      log.info('dattod has stopped');
      await opened.disposeAsync();
      return tidy;
    },
  };
}

/** Claims the pins. Throws DAEMON_ALREADY_RUNNING if another process uses what earlier daemons left in the kernel. */
function claimTracking(trackers: TrackerRegistry, pinDirectory: string): void {
  try {
    trackers.claim();
  } catch (thrown) {
    const error = toAgentError(thrown);
    if (error.code !== 'DEVICE_BUSY') throw error;
    throw new AgentError('DAEMON_ALREADY_RUNNING', `Another process uses the pins in ${pinDirectory}`, {
      hint: 'stop the other dattod, or give this one its own --pin-dir',
      cause: error,
    });
  }
}

async function within(ms: number, work: Promise<unknown>): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), ms);
  });
  try {
    return await Promise.race([work.then(() => true), late]);
  } finally {
    clearTimeout(timer);
  }
}

function makeDirectory(path: string, option: string): void {
  try {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new AgentError(
      'FILE_ERROR',
      `The directory ${path} cannot be made: ${errnoCode(error) ?? String(error)}`,
      {
        hint: `choose another with ${option}`,
        cause: error,
      },
    );
  }
}

function readBootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    return '';
  }
}
