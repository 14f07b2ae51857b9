/** The process of dattod: arguments, detaching, signals, crashes, exit codes. */
import { spawn } from 'node:child_process';
import { AgentError } from '../base/errors.ts';
import { reportError } from '../base/report.ts';
import { writeError } from '../base/visible.ts';
import { exitNow } from '../linux/exit.ts';
import type { DaemonDependencies } from './daemon-dependencies.ts';
import { parseDaemonArguments } from './command-line.ts';
import { detach, reportStart } from './detach.ts';
import type { Daemon } from './daemon.ts';
import { removeTracking } from './remove-tracking.ts';
import type { DaemonSettings } from './settings.ts';

/** Runs dattod with its arguments. Resolves with the exit code; for a daemon, after it has ended. */
export async function runDattod(
  args: readonly string[],
  load: () => Promise<DaemonDependencies>,
): Promise<number> {
  try {
    if (args[0] === 'reboot') return await (await import('./reboot/run.ts')).runReboot(args.slice(1), load);
    const settings = parseDaemonArguments(args);
    if (settings === undefined) return 0;
    if (process.getuid?.() !== 0)
      throw new AgentError(
        'NO_PERMISSION',
        'dattod needs root, to read block devices and to freeze filesystems',
        {
          hint: 'run it with sudo',
        },
      );
    if (settings.removeTracking) return await removeTracking(settings, await load());
    if (settings.foreground) return await serve(settings, load);
    await detach(args);
    return 0;
  } catch (thrown) {
    const { line, exitCode, error } = reportError('dattod', thrown);
    await reportStart({ error: error.toDocument() });
    writeError(`${line}\n`);
    return exitCode;
  }
}

async function serve(settings: DaemonSettings, load: () => Promise<DaemonDependencies>): Promise<number> {
  process.title = 'dattod';
  // Images, logs and records hold data from the disks, so only root may read them.
  process.umask(0o077);
  // Loaded here, so that a parent that only detaches stays small and fast.
  const [{ createDaemon }, { readConfig }, dependencies] = await Promise.all([
    import('./daemon.ts'),
    import('./config.ts'),
    load(),
  ]);
  const config = await readConfig(settings.config, settings.configRequired);
  const ending = new Promise<string>((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.on(signal, () => resolve(`dattod got ${signal}`));
  });
  const daemon = await createDaemon(dependencies, settings, config);
  process.on('SIGHUP', () => reopenLog(daemon));
  guardAgainstCrashes(daemon);
  await reportStart({ ready: true });
  notifySystemd();
  const tidy = await daemon.stop(await ending);
  return tidy ? 0 : 1;
}

function reopenLog(daemon: Daemon): void {
  try {
    daemon.reopenLog();
    daemon.log.info('the log was reopened');
  } catch (err) {
    daemon.log.error({ err }, 'the log could not be reopened');
  }
}

/** On a defect: ends the daemon, but only after everything is thawed and the log has the reason. */
function guardAgainstCrashes(daemon: Daemon): void {
  const crash = (err: unknown) => {
    daemon.log.fatal({ err }, 'dattod has a defect and ends');
    writeError(`${reportError('dattod', err).line}\n`);
    void daemon.crash().finally(() => exitNow(1));
  };
  process.on('uncaughtException', crash);
  process.on('unhandledRejection', crash);
}

/** Tells systemd that a Type=notify unit is ready. Node has no datagram sockets, so systemd's own tool sends it. */
function notifySystemd(): void {
  if (process.env['NOTIFY_SOCKET'] === undefined) return;
  spawn('systemd-notify', ['--ready', `--pid=${process.pid}`], { stdio: 'ignore' })
    .on('error', () => undefined)
    .once('exit', () => {
      // Hooks must not send notifications for the daemon.
      delete process.env['NOTIFY_SOCKET'];
    });
}
