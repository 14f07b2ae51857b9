/**
 * Where the command writes, what it asks and what it hears of Ctrl-C, as an argument, so that tests stand in for a
 * terminal.
 */
import { StandardOutput } from '../base/standard-output.ts';
import { visibleLine, writeError } from '../base/visible.ts';
import { askAtTerminal } from './ask.ts';

export interface Io {
  /** Results alone, which scripts read. Does not throw: `finishOut` does. */
  out(text: string): void;
  /**
   * Throws FILE_ERROR if a result could not be written. `needed`: the result is nowhere else (a recovery code), so a
   * reader that has left is a failure too; otherwise it is none (`| head -1`).
   */
  finishOut(needed?: boolean): void;
  /** For people: progress, warnings, errors. */
  err(text: string): void;
  /** Standard error is a terminal, so progress may be a bar. */
  readonly isTerminal: boolean;
  /** Calls back at every Ctrl-C (and SIGTERM) until the returned function is called. */
  onInterrupt(callback: () => void): () => void;
  /** Asks for something that is not echoed. Throws BAD_USAGE where nobody can be asked, CANCELLED at Ctrl-C. */
  askSecret(question: string): Promise<string>;
  /** Ends the process at once; nothing that is under way is waited for. */
  quit(code: number): void;
}

export function processIo(): Io {
  const output = new StandardOutput();
  // A reader of progress and warnings that has left ends neither the command nor the job it waits for.
  process.stderr.on('error', () => undefined);
  return {
    out: (text) => output.write(text),
    finishOut: (needed) => output.finish(needed),
    err: writeError,
    isTerminal: process.stderr.isTTY,
    onInterrupt: (callback) => {
      process.on('SIGINT', callback).on('SIGTERM', callback);
      return () => process.off('SIGINT', callback).off('SIGTERM', callback);
    },
    askSecret: (question) => askAtTerminal(visibleLine(question), process.stdin, process.stderr),
    quit: (code) => process.exit(code),
  };
}
