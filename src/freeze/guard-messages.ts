/**
 * The messages between the agent and its guard process: JSON objects, one per line, over the guard's standard input and
 * output. The end of the input is a command too: thaw and exit. If no `leave` came before it, the agent has died.
 */
import type { ErrorDocument } from '../base/errors.ts';
import type { ProcessIdentity } from '../linux/process.ts';

export type Command =
  | {
      readonly do: 'prepare';
      /** One mount point per filesystem, in the order of freezing. */
      readonly mounts: readonly string[];
      readonly maxFreezeMs: number;
      readonly runDirectory: string;
      readonly agent: ProcessIdentity | undefined;
    }
  | { readonly do: 'freeze' }
  | { readonly do: 'thaw' }
  | { readonly do: 'leave' };

export interface MountReport {
  readonly path: string;
  /** Milliseconds from the start of the freeze call to the end of the thaw call. */
  readonly frozenMs: number;
  /** The filesystem was not frozen any more when the guard thawed it. */
  readonly thawedByOthers: boolean;
}

export interface FreezeReport {
  /** Milliseconds from the first freeze to the last thaw. */
  readonly frozenMs: number;
  readonly perMount: readonly MountReport[];
  /** Reasons why filesystems may still be frozen; empty if all are thawed. */
  readonly failures: readonly string[];
}

export type Answer =
  | { readonly is: 'ready' }
  /** The first filesystem begins to freeze now. The agent starts its own timer for the deadline. */
  | { readonly is: 'freezing' }
  /** `beganAt`: milliseconds of CLOCK_MONOTONIC at which the first filesystem began to freeze. */
  | { readonly is: 'frozen'; readonly beganAt: number }
  | { readonly is: 'thawed'; readonly report: FreezeReport }
  /** The guard thawed without a command. */
  | { readonly is: 'expired'; readonly why: 'deadline' | 'signal'; readonly report: FreezeReport }
  /** The last command failed; nothing is frozen. */
  | { readonly is: 'failed'; readonly error: ErrorDocument };

export function encodeLine(message: Command | Answer): string {
  return `${JSON.stringify(message)}\n`;
}

/** Splits a stream of text into lines. The text may arrive in any pieces. */
export function lineSplitter(onLine: (line: string) => void): (chunk: string) => void {
  let rest = '';
  return (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) if (line !== '') onLine(line);
  };
}
