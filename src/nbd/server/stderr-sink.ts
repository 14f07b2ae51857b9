/** Writes log lines to standard error directly from any thread, without the main thread's event loop. */
import { writeSync } from 'node:fs';
import { errnoCode } from '../../base/errors.ts';
import { holdableSink, type LogSink } from '../../base/log.ts';

export const stderrSink: LogSink = holdableSink((text) => {
  try {
    writeSync(2, text);
  } catch (error) {
    // The reader has closed the pipe, or the pipe is full. A lost log line must not stop the server.
    if (!['EPIPE', 'EAGAIN'].includes(errnoCode(error) ?? '')) throw error;
  }
});
