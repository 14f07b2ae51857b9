/**
 * The daemon's log file. It is appended to in whole lines and reopened on SIGHUP (log rotation). While a filesystem is
 * frozen, nothing is written: lines wait in memory, and a reopening waits too. They also wait until `open`. The daemon
 * first thaws what an earlier daemon left frozen, because the log file may lie on such a filesystem.
 */
import { closeSync, openSync, statSync, writeSync } from 'node:fs';
import { AgentError, errnoCode } from '../base/errors.ts';
import { holdableSink, type LogSink } from '../base/log.ts';

const newline = 0x0a;

export class LogFile implements LogSink {
  readonly #path: string;
  readonly #sink: LogSink;
  #fd = -1;
  /** Number of reasons not to write. A file that is not open yet counts as one. */
  #holds = 1;
  #reopenWaits = false;
  /** The file ends within a line, because a write was incomplete. */
  #inLine = false;

  /** `path`: `-` is standard error. */
  constructor(path: string) {
    this.#path = path;
    this.#sink = holdableSink((text) => this.#append(text));
    this.#sink.hold();
  }

  /**
   * Writes to the file. Ignores errors: a full disk must not end a backup, and there is no other place to report it. A
   * nearly full disk may take only a part of a line.
   */
  #append(text: string): void {
    const bytes = Buffer.from(this.#inLine ? `\n${text}` : text);
    try {
      const written = writeSync(this.#fd, bytes);
      if (written > 0) this.#inLine = bytes[written - 1] !== newline;
    } catch {
      // The next line may find free space again.
    }
  }

  /** Opens the file and writes the lines that waited. Throws FILE_ERROR. */
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

  /** Opens the path again. If that fails, it throws and keeps the old file. */
  reopen(): void {
    this.#reopenWaits = this.#holds > 0;
    if (this.#reopenWaits) return;
    const old = this.#fd;
    this.#fd = openLog(this.#path);
    if (this.#path !== '-') closeSync(old);
    this.#inLine = false;
  }

  /** Writes the lines that wait, even if something is frozen. For a process that ends and whose guard thaws. */
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
  // Opening a pipe could wait for ever. A line written to a disk would destroy data.
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
