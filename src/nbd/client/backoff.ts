/**
 * Connecting to a server that is away for a while: again and again, with growing pauses that are not the same
 * for everybody, until a deadline.
 */
import { type Clock, systemClock } from '../../base/clock.ts';
import { errorKinds } from '../../base/error-codes.ts';
import { AgentError, toAgentError } from '../../base/errors.ts';
import { type ConnectOptions, connectNbd } from './connect.ts';
import type { NbdTarget } from './target.ts';
import { type NbdAddress, formatNbdUri } from './uri.ts';

export interface BackoffOptions extends ConnectOptions {
  /** How long to go on, milliseconds from now. There is always one attempt. */
  readonly deadlineMs: number;
  /** Called after a failed attempt, with its number (from 1) and the pause before the next in milliseconds. */
  readonly onAttempt?: (attempt: number, error: AgentError, pauseMs: number) => void;
  readonly clock?: Clock;
  /** For tests. */
  readonly connect?: (address: NbdAddress, options: ConnectOptions) => Promise<NbdTarget>;
  readonly random?: () => number;
}

const FIRST_PAUSE_MS = 100;
const LONGEST_PAUSE_MS = 5000;

/**
 * Like `connectNbd`, but tries again after TARGET_UNREACHABLE and NBD_CONNECTION_LOST until the deadline, and
 * then throws the last of these. Every other error is thrown at once.
 */
export async function connectWithBackoff(address: NbdAddress, options: BackoffOptions): Promise<NbdTarget> {
  const { clock = systemClock, connect = connectNbd, random = Math.random, signal } = options;
  const start = clock.monotonic();
  for (let attempt = 1; ; attempt++) {
    let failure: AgentError;
    try {
      const left = Math.max(1, Math.ceil(start + options.deadlineMs - clock.monotonic()));
      const most = Math.min(options.connectTimeoutMs ?? 15_000, Math.max(left, 1000));
      return await connect(address, { ...options, connectTimeoutMs: most });
    } catch (error) {
      failure = toAgentError(error);
    }

    if (errorKinds[failure.code].retry !== true) throw failure;
    // Half of the pause is by chance, so that many clients of one server do not come back at once.
    const ceiling = Math.min(FIRST_PAUSE_MS * 2 ** (attempt - 1), LONGEST_PAUSE_MS);
    const pause = Math.round(ceiling * (0.5 + random() / 2));
    if (clock.monotonic() + pause >= start + options.deadlineMs) throw failure;
    options.onAttempt?.(attempt, failure, pause);
    try {
      await clock.sleep(pause, signal);
    } catch (error) {
      throw new AgentError('CANCELLED', `Cancelled while waiting for ${formatNbdUri(address)}`, {
        cause: error,
      });
    }
  }
}
