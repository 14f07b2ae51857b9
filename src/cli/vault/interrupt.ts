/** Ctrl-C for work in this process: the first one cancels the work cleanly, the second one quits at once. */
import { AgentError } from '../../base/errors.ts';
import type { Io } from '../io.ts';

export async function untilInterrupted<T>(io: Io, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let interrupts = 0;
  const stopListening = io.onInterrupt(() => {
    if (++interrupts > 1) io.quit(4);
    else controller.abort(new AgentError('CANCELLED', 'Cancelled'));
  });
  try {
    return await work(controller.signal);
  } catch (error) {
    // After a cancellation any error is reported as the cancellation.
    if (controller.signal.aborted) throw controller.signal.reason;
    throw error;
  } finally {
    stopListening();
  }
}
