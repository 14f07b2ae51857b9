/**
 * The daemon's log file: appended to in whole lines, reopened on SIGHUP (log rotation), and silent while a
 * filesystem is frozen: then lines, and also a reopening, wait in memory.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import { AgentError, errnoCode } from '../base/errors.ts';
import { holdableSink, type LogSink } from '../base/log.ts';

export class LogFile implements LogSink {
  readonly #path: string;
  readonly #sink: LogSink;
  #fd: number;
  #holds = 0;
  #reopenWaits = false;

  /** Opens the file, `-` being standard error. Throws FILE_ERROR. */
  constructor(path: string) {
    this.#path = path;
    this.#fd = openLog(path);
    this.#sink = holdableSink((text) => {
      try {
        writeSync(this.#fd, text);
      } catch {
        // A full disk must not end a backup; there is nowhere to say so.
      }
    });
  }

  write(line: string): void {
    this.#sink.write(line);
  }

  hold(): void {
    this.#holds++;
    this.#sink.hold();
  }

  release(): void {
    if (this.#holds > 0) this.#holds--;
    this.#sink.release();
    if (this.#holds === 0 && this.#reopenWaits) this.reopen();
  }

  /** Opens the path anew; where that fails, the old file is kept. */
  reopen(): void {
    this.#reopenWaits = this.#holds > 0;
    if (this.#reopenWaits) return;
    const old = this.#fd;
    this.#fd = openLog(this.#path);
    if (this.#path !== '-') closeSync(old);
  }

  close(): void {
    if (this.#path !== '-') closeSync(this.#fd);
    this.#fd = -1;
  }
}

function openLog(path: string): number {
  if (path === '-') return 2;
  try {
    return openSync(path, 'a', 0o640);
  } catch (error) {
    throw new AgentError(
      'FILE_ERROR',
      `The log ${path} cannot be opened: ${errnoCode(error) ?? String(error)}`,
      {
        hint: 'choose another with --log-file',
        cause: error,
      },
    );
  }
}
