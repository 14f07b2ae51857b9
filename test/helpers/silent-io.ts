/** A terminal that nobody looks at, with answers to what it asks. */
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
