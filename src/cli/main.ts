/** The entry of dattocli: arguments in, exit code out. Every error is reported here. */
import { CommanderError } from 'commander';
import { AgentError } from '../base/errors.ts';
import { reportError } from '../base/report.ts';
import type { Io } from './io.ts';
import { exitWithWarnings } from './outcome.ts';
import { joinPairs } from './pairs.ts';
import { createProgram } from './program.ts';

/** Runs dattocli with its arguments (without the program's name). Never throws. */
export async function runDattocli(args: readonly string[], io: Io): Promise<number> {
  let exitCode = 0;
  try {
    const program = createProgram(io, (code) => {
      exitCode = code;
    });
    if (args.length === 0)
      throw new AgentError('BAD_USAGE', 'No command was given', {
        hint: "'dattocli --help' lists the commands",
      });
    await program.parseAsync(joinPairs(args), { from: 'user' }).catch(unlessHelp);
    // A command that failed has reported its error already.
    if (exitCode === 0 || exitCode === exitWithWarnings) io.finishOut();
    return exitCode;
  } catch (thrown) {
    const report = reportError('dattocli', usageError(thrown), { json: args.includes('--json') });
    io.err(`${report.line}\n`);
    return report.exitCode;
  }
}

/** Ignores what commander throws after it printed the help or the version. */
function unlessHelp(thrown: unknown): void {
  if (!(thrown instanceof CommanderError) || thrown.exitCode !== 0) throw thrown;
}

function usageError(thrown: unknown): unknown {
  if (!(thrown instanceof CommanderError)) return thrown;
  if (thrown.code === 'commander.help')
    return new AgentError('BAD_USAGE', 'Missing subcommand', {
      hint: 'add --help to list the subcommands',
    });
  const message = thrown.message.replace(/^error: /, '').replaceAll('\u0000', ' ');
  return new AgentError('BAD_USAGE', message.charAt(0).toUpperCase() + message.slice(1), {
    hint: "see 'dattocli help'",
  });
}
