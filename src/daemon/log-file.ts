/**
 * The daemon's log file: appended to in whole lines, reopened on SIGHUP (log rotation), and silent while a
 * filesystem is frozen: then lines, and also a reopening, wait in memory. They also wait until `open`, so that
 * what an earlier daemon left frozen is thawed before the file, which may lie on it, is touched.
 */
import { closeSync, openSync, statSync, writeSync } from 'node:fs';
import { AgentError, errnoCode } from '../base/errors.ts';
import { holdableSink, type LogSink } from '../base/log.ts';

const newline = 0x0a;

export class LogFile implements LogSink {
  readonly #path: string;
  readonly #sink: LogSink;
  #fd = -1;
  /** Not being open counts as one. */
  #holds = 1;
  #reopenWaits = false;
  /** The file ends within a line. */
  #inLine = false;

  /** `-` is standard error. */
  constructor(path: string) {
    this.#path = path;
    this.#sink = holdableSink((text) => this.#append(text));
    this.#sink.hold();
  }

  /** A full disk must not end a backup; there is nowhere to say so. It may take a part of a line only. */
  #append(text: string): void {
    const bytes = Buffer.from(this.#inLine ? `\n${text}` : text);
    try {
      const written = writeSync(this.#fd, bytes);
      if (written > 0) this.#inLine = bytes[written - 1] !== newline;
    } catch {
      // The next line may find room again.
    }
  }

  /** Opens the file and writes what waited. Throws FILE_ERROR. */
  open(): void {
    this.#fd = openLog(this.#path);
    this.release();
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
    this.#inLine = false;
  }

  /** Writes what waits, frozen or not: for a process that ends and has a guard behind it. */
  force(): void {
    while (this.#holds > 0) this.release();
  }

  close(): void {
    if (this.#path !== '-' && this.#fd >= 0) closeSync(this.#fd);
    this.#fd = -1;
  }
}

function openLog(path: string): number {
  if (path === '-') return 2;
  const found = statSync(path, { throwIfNoEntry: false });
  // Opening a pipe could wait for ever, and a line in a disk would destroy what is there.
  if (found !== undefined && !found.isFile() && !found.isCharacterDevice())
    throw new AgentError('FILE_ERROR', `The log ${path} is not a regular file`, {
      hint: 'choose another with --log-file',
    });
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
