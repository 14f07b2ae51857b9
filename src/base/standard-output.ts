/**
 * Standard output of the programs. Results are written synchronously and completely, so the program knows if a result
 * did not arrive. Node's own stream reports a full disk only later, to a listener that the command does not wait for.
 *
 * A reader that has ended (`| head -1`, EPIPE) is not a failure by itself: it has read enough. Every other error is a
 * failure (ENOSPC, EIO, EBADF, a quota): the program ends with FILE_ERROR and exit code 1.
 */
import { fstatSync, fsyncSync, writeSync } from 'node:fs';
import { AgentError, errnoCode } from './errors.ts';
import { visible } from './visible.ts';

/** Milliseconds between two attempts while a non-blocking pipe is full. */
const fullPipeMs = 5;

/** The file behind standard output; tests use another. */
export interface OutputFile {
  /** Returns the number of bytes that were written. Throws errors with errno's name as `code`. */
  write(data: Uint8Array): number;
  /** Makes a regular file durable: some filesystems report a full disk only then. */
  sync(): void;
}

export class StandardOutput {
  readonly #file: OutputFile;
  #failure: Error | undefined;
  #readerLeft = false;

  constructor(file: OutputFile = descriptor(1)) {
    this.#file = file;
  }

  /** True if nothing more can be written: the reader has ended, or a write has failed. */
  get hasEnded(): boolean {
    return this.#readerLeft || this.#failure !== undefined;
  }

  /** Writes the whole text. Does not throw; `finish` reports the error. After a failure nothing more is written. */
  write(text: string): void {
    const data = Buffer.from(visible(text), 'utf8');
    try {
      for (let done = 0; done < data.length && !this.hasEnded;) done += this.#some(data.subarray(done));
    } catch (error) {
      if (errnoCode(error) === 'EPIPE') this.#readerLeft = true;
      else this.#failure = asError(error);
    }
  }

  /**
   * Throws FILE_ERROR if some output did not arrive. `needed`: the text is stored nowhere else, so a reader that has
   * ended is a failure too.
   */
  finish(needed = false): void {
    if (!this.hasEnded)
      try {
        this.#file.sync();
      } catch (error) {
        this.#failure = asError(error);
      }
    if (this.#failure !== undefined)
      throw new AgentError(
        'FILE_ERROR',
        `The result could not be written to standard output: ${errnoCode(this.#failure) ?? this.#failure.message}`,
        {
          hint: 'Make room where standard output goes, or send it elsewhere, and run the command again',
          cause: this.#failure,
        },
      );
    if (needed && this.#readerLeft)
      throw new AgentError(
        'FILE_ERROR',
        'The result could not be written to standard output: its reader has ended (EPIPE)',
        { hint: 'Send standard output to a terminal, or to a program that reads all of it' },
      );
  }

  #some(data: Uint8Array): number {
    try {
      return this.#file.write(data);
    } catch (error) {
      if (errnoCode(error) !== 'EAGAIN') throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, fullPipeMs);
      return 0;
    }
  }
}

function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

function descriptor(fd: number): OutputFile {
  return {
    write: (data) => writeSync(fd, data),
    sync: () => {
      if (fstatSync(fd).isFile()) fsyncSync(fd);
    },
  };
}
