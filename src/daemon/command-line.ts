/** The command line of dattod (docs/dattod.md): paths, and whether to detach. */
import { Command, CommanderError, Option } from 'commander';
import { resolve } from 'node:path';
import { AgentError } from '../base/errors.ts';
import { agentVersion } from '../base/version.ts';
import { writeOut } from '../base/visible.ts';
import { type DaemonSettings, defaultSettings, logLevels } from './settings.ts';

interface Values {
  foreground?: true;
  removeTracking?: true;
  socket: string;
  pidFile: string;
  logFile: string;
  logLevel: string;
  stateDir: string;
  runDir: string;
  pinDir: string;
  config: string;
}

/** Builds the parser; `write` gets the texts of `--help` and `--version`. */
export function daemonCommand(write: (text: string) => void = writeOut): Command {
  const defaults = defaultSettings;
  return new Command('dattod')
    .description('Backs up block devices of this machine when dattocli (or the API) asks for it.')
    .version(agentVersion, '--version', 'print the version')
    .helpOption('-h, --help', 'print this help')
    .option('--foreground', 'stay attached (for systemd) instead of detaching as a service')
    .option('--socket <path>', 'Unix socket of the API, for root alone', defaults.socket)
    .option('--pid-file <path>', 'locked while the daemon runs', defaults.pidFile)
    .option('--log-file <path>', 'log, reopened on SIGHUP; - is standard error', defaults.logFile)
    .addOption(
      new Option('--log-level <level>', 'least level that is logged').choices(logLevels).default('info'),
    )
    .option('--state-dir <path>', 'job history and the known content of targets', defaults.stateDirectory)
    .option('--run-dir <path>', 'records of frozen filesystems; on a tmpfs', defaults.runDirectory)
    .option(
      '--pin-dir <path>',
      'change tracking continues here without the daemon; on a bpffs',
      defaults.pinDirectory,
    )
    .option('--config <path>', 'configuration, JSON; need not be there', defaults.config)
    .option(
      '--remove-tracking',
      'instead of running: remove change tracking from the kernel, for the removal of a package',
    )
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({ writeOut: write, writeErr: () => undefined, getOutHelpWidth: () => 100 });
}

/** Reads the arguments. Returns undefined if they asked for a text, which is then written. Throws BAD_USAGE. */
export function parseDaemonArguments(
  args: readonly string[],
  write?: (text: string) => void,
): DaemonSettings | undefined {
  const command = daemonCommand(write);
  try {
    command.parse(args, { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return undefined;
    throw new AgentError('BAD_USAGE', error.message.replace(/^error: /, ''), { hint: 'see dattod --help' });
  }
  const values = command.opts<Values>();
  return {
    foreground: values.foreground === true,
    removeTracking: values.removeTracking === true,
    socket: resolve(values.socket),
    pidFile: resolve(values.pidFile),
    logFile: values.logFile === '-' ? '-' : resolve(values.logFile),
    logLevel: values.logLevel,
    stateDirectory: resolve(values.stateDir),
    runDirectory: resolve(values.runDir),
    pinDirectory: resolve(values.pinDir),
    config: resolve(values.config),
    configRequired: command.getOptionValueSource('config') === 'cli',
  };
}
