/** The end of a program that commander parses: the last output, the error line, the exit code. */
import { type Command, CommanderError } from 'commander';
import { reportError } from './report.ts';
import type { StandardOutput } from './standard-output.ts';
import { writeError } from './visible.ts';

/** Parses the arguments and runs the action. Writes an error and sets the exit code of the process. Never throws. */
export async function runProgram(program: Command, output: StandardOutput): Promise<void> {
  try {
    await program.parseAsync().catch((thrown: unknown) => {
      // Commander throws also after it has printed the help or the version.
      if (!(thrown instanceof CommanderError) || thrown.exitCode !== 0) throw thrown;
    });
    output.finish();
  } catch (error) {
    if (error instanceof CommanderError) {
      // commander has printed the error.
      process.exitCode = 2;
    } else {
      const { line, exitCode } = reportError(program.name(), error);
      writeError(`${line}\n`);
      process.exitCode = exitCode;
    }
  }
}
