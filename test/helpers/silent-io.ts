/** A terminal without a reader, with prepared answers to its questions. */
import type { Io } from '../../src/cli/io.ts';

export function silentIo(answers: readonly string[] = []): Io {
  const left = [...answers];
  return {
    out: () => undefined,
    finishOut: () => undefined,
    err: () => undefined,
    isTerminal: false,
    onInterrupt: () => () => undefined,
    askSecret: () => Promise.resolve(left.shift() ?? ''),
    quit: () => undefined,
  };
}
