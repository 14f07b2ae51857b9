/**
 * The log: pino's JSON lines, through a sink that can keep them in memory. While a filesystem is frozen, nothing may be
 * written to a file: a write to a frozen filesystem would block the process that has to thaw it. So lines stay in
 * memory between `hold()` and `release()`.
 */
import { pino } from 'pino';
import { visible } from './visible.ts';

export type Log = pino.Logger;

export interface LogSink {
  /** Keeps lines in memory from now on. Holds can be nested. */
  hold(): void;
  /** Ends one hold. After the last hold, the kept lines are written. */
  release(): void;
  write(line: string): void;
}

/** Returns a sink that passes whole lines to `write`. */
export function holdableSink(write: (text: string) => void): LogSink {
  let holds = 0;
  let waiting: string[] = [];
  return {
    hold: () => {
      holds++;
    },
    release: () => {
      if (holds > 0) holds--;
      if (holds > 0 || waiting.length === 0) return;
      const text = waiting.join('');
      waiting = [];
      write(text);
    },
    write: (line) => {
      if (holds > 0) waiting.push(line);
      else write(line);
    },
  };
}

export function createLog(sink: LogSink, level = 'info'): Log {
  const write = (line: string): void => sink.write(visible(line));
  return pino({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }, { write });
}

/** Returns a log that writes nothing, as a default and for tests. */
export function silentLog(): Log {
  return pino({ level: 'silent' });
}
