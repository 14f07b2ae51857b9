/**
 * The command line of dattocli: all commands under one program (docs/cli.md). Each command is one file, named by its
 * words: `vault key add` is commands/vault/key/add.ts. The file has the definition, the action and the rendering.
 */
import { Command } from 'commander';
import { agentVersion } from '../base/version.ts';
import { backupStatus } from './commands/backupstatus.ts';
import { basicInfo } from './commands/basicinfo.ts';
import { chains } from './commands/chains.ts';
import { completeInfo } from './commands/completeinfo.ts';
import { devices } from './commands/devices.ts';
import { diff } from './commands/diff.ts';
import { exportCommand } from './commands/export.ts';
import { forget } from './commands/forget.ts';
import { jobs } from './commands/jobs.ts';
import { mount } from './commands/mount.ts';
import { pauseBackup } from './commands/pausebackup.ts';
import { points } from './commands/points.ts';
import { restore } from './commands/restore.ts';
import { resumeBackup } from './commands/resumebackup.ts';
import { startBackup } from './commands/startbackup.ts';
import { stopBackup } from './commands/stopbackup.ts';
import { tracking } from './commands/tracking.ts';
import { umount } from './commands/umount.ts';
import { vault } from './commands/vault.ts';
import { verify } from './commands/verify.ts';
import { version } from './commands/version.ts';
import { addCommonOptions, type CommonOptions, createContext, type Run } from './context.ts';
import type { Io } from './io.ts';

const commands = [
  startBackup,
  stopBackup,
  pauseBackup,
  resumeBackup,
  backupStatus,
  jobs,
  devices,
  tracking,
  chains,
  verify,
  points,
  diff,
  restore,
  mount,
  umount,
  exportCommand,
  forget,
  vault,
  basicInfo,
  completeInfo,
  version,
];

/** The commands that do not talk to the daemon. */
const offline = new Set(['points', 'diff', 'restore', 'mount', 'umount', 'export', 'forget', 'vault']);

/** Returns the program. `onExit` gets the exit code of the command that ran. Errors are thrown. */
export function createProgram(io: Io, onExit: (code: number) => void): Command {
  const run: Run = (work) =>
    async function action(this: Command) {
      onExit(await work(createContext(io, this.optsWithGlobals<CommonOptions>()), this));
    };
  const output = {
    writeOut: (text: string) => io.out(text),
    // main.ts reports all errors.
    writeErr: () => undefined,
    getOutHelpWidth: () => 100,
  };
  const program = addCommonOptions(
    new Command('dattocli')
      .description(
        'Starts and shows backups of block devices, which dattod makes. Manages vaults and restores from them.',
      )
      .version(agentVersion, '--version', 'print the version'),
  )
    .helpCommand('help [command]', 'print the help of a command')
    .exitOverride()
    .configureOutput(output);
  const prepared = (command: Command, socket: boolean): Command => {
    for (const each of command.commands) prepared(each, socket);
    return addCommonOptions(command, socket)
      .allowExcessArguments(false)
      .exitOverride()
      .configureOutput(output);
  };
  for (const define of commands) {
    const command = define(run);
    program.addCommand(prepared(command, !offline.has(command.name())));
  }
  return program;
}
