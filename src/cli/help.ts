/** The help of every command, for the manual and for the test that holds the two together. */
import type { Io } from './io.ts';
import { createProgram } from './program.ts';

/** Texts by the command's name, `dattocli` being the program's own. */
export function helpTexts(): ReadonlyMap<string, string> {
  const nowhere: Io = {
    out: () => undefined,
    err: () => undefined,
    isTerminal: false,
    onInterrupt: () => () => undefined,
  };
  const program = createProgram(nowhere, () => undefined);
  return new Map([
    ['dattocli', program.helpInformation()],
    ...program.commands.map((command): [string, string] => [command.name(), command.helpInformation()]),
  ]);
}
