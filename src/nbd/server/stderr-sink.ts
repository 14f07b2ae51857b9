/** Log lines to standard error from any thread, without the detour over the main thread's event loop. */
import { writeSync } from 'node:fs';
import { errnoCode } from '../../base/errors.ts';
import { holdableSink, type LogSink } from '../../base/log.ts';

export const stderrSink: LogSink = holdableSink((text) => {
  try {
    writeSync(2, text);
  } catch (error) {
    // Nobody reads any more, or the pipe is full: the log is not worth the service.
    if (!['EPIPE', 'EAGAIN'].includes(errnoCode(error) ?? '')) throw error;
  }
});
