/** Ctrl-C for work in this process: the first ends it in good order, the second at once. */
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
    // Whatever the end of the work looked like from within, it was asked for.
    if (controller.signal.aborted) throw controller.signal.reason;
    throw error;
  } finally {
    stopListening();
  }
}
