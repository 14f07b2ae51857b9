/** The help texts of all commands, for docs/cli.md and for the test that compares the two. */
import type { Command } from 'commander';
import type { Io } from '../../src/cli/io.ts';
import { createProgram } from '../../src/cli/program.ts';

/**
 * Returns the help texts by command name, for example `tracking stop`. `dattocli` is the help of the program itself.
 */
export function helpTexts(): ReadonlyMap<string, string> {
  const nowhere: Io = {
    out: () => undefined,
    finishOut: () => undefined,
    err: () => undefined,
    isTerminal: false,
    onInterrupt: () => () => undefined,
    askSecret: () => Promise.resolve(''),
    quit: () => undefined,
  };
  const program = createProgram(nowhere, () => undefined);
  return new Map([
    ['dattocli', program.helpInformation()],
    ...program.commands.flatMap((command) => textsOf(command, [])),
  ]);
}

function textsOf(command: Command, parents: readonly string[]): [string, string][] {
  const names = [...parents, command.name()];
  return [
    [names.join(' '), command.helpInformation()],
    ...command.commands.flatMap((each) => textsOf(each, names)),
  ];
}
