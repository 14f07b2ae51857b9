/** Where the command writes and what it hears of Ctrl-C, as an argument, so that tests stand in for a terminal. */
export interface Io {
  /** What scripts read: results alone. */
  out(text: string): void;
  /** For people: progress, warnings, errors. */
  err(text: string): void;
  /** Standard error is a terminal, so progress may be a bar. */
  readonly isTerminal: boolean;
  /** Calls back at every Ctrl-C (and SIGTERM) until the returned function is called. */
  onInterrupt(callback: () => void): () => void;
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
  };
}
