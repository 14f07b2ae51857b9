/**
 * Connects to a server that is temporarily unreachable. Retries with exponential back-off and random jitter until a
 * deadline.
 */
import { pauseAfter } from '../../base/back-off.ts';
import { type Clock, systemClock } from '../../base/clock.ts';
import { errorKinds } from '../../base/error-codes.ts';
import { AgentError, toAgentError } from '../../base/errors.ts';
import { type ConnectOptions, connectNbd } from './connect.ts';
import type { NbdTarget } from './target.ts';
import { type NbdAddress, formatNbdUri } from './uri.ts';

export interface BackoffOptions extends ConnectOptions {
  /** Time limit of all attempts, milliseconds from now. At least one attempt is made. */
  readonly deadlineMs: number;
  /** Called after a failed attempt, with its number (from 1) and the pause before the next one in milliseconds. */
  readonly onAttempt?: (attempt: number, error: AgentError, pauseMs: number) => void;
  readonly clock?: Clock;
  /** For tests. */
  readonly connect?: (address: NbdAddress, options: ConnectOptions) => Promise<NbdTarget>;
  readonly random?: () => number;
}

/** Half of each pause is random, so that the clients of one server do not all return at the same time. */
const backOff = { firstMs: 100, longestMs: 5000, jitter: 0.5 };

/**
 * Connects like `connectNbd`, but retries after TARGET_UNREACHABLE and NBD_CONNECTION_LOST until the deadline. Then throws
 * the last error. Throws every other error at once.
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
    const pause = pauseAfter(attempt, backOff, random);
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
