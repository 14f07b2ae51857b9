/**
 * Where the command writes, what it asks and what it hears of Ctrl-C, as an argument, so that tests stand in for a
 * terminal.
 */
import { askAtTerminal } from './ask.ts';

export interface Io {
  /** What scripts read: results alone. */
  out(text: string): void;
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
  // A reader that has seen enough (`| head -1`) ends neither the command nor the job it waits for.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
  return {
    out: (text) => process.stdout.write(text),
    err: (text) => process.stderr.write(text),
    isTerminal: process.stderr.isTTY,
    onInterrupt: (callback) => {
      process.on('SIGINT', callback).on('SIGTERM', callback);
      return () => process.off('SIGINT', callback).off('SIGTERM', callback);
    },
    askSecret: (question) => askAtTerminal(question, process.stdin, process.stderr),
    quit: (code) => process.exit(code),
  };
}
