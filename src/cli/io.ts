/** The terminal as an argument: output, questions and Ctrl-C. Tests replace it. */
import { StandardOutput } from '../base/standard-output.ts';
import { visibleLine, writeError } from '../base/visible.ts';
import { askAtTerminal } from './ask.ts';

export interface Io {
  /** Writes results, which scripts read. Never throws; `finishOut` reports a failed write. */
  out(text: string): void;
  /**
   * Throws FILE_ERROR if a result could not be written. A reader that closed the pipe (`| head -1`) is no failure,
   * unless `needed`: the result exists nowhere else (a recovery code).
   */
  finishOut(needed?: boolean): void;
  /** Writes text for people: progress, warnings, errors. */
  err(text: string): void;
  /** Standard error is a terminal, so progress can be a bar. */
  readonly isTerminal: boolean;
  /** Calls back at every Ctrl-C (and SIGTERM) until the returned function is called. */
  onInterrupt(callback: () => void): () => void;
  /** Asks for a secret without echo. Throws BAD_USAGE without a terminal, CANCELLED at Ctrl-C. */
  askSecret(question: string): Promise<string>;
  /** Ends the process at once, without waiting for work in progress. */
  quit(code: number): void;
}

export function processIo(): Io {
  const output = new StandardOutput();
  // If the reader of standard error closes the pipe, the command and its job continue.
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
