/**
 * A file without a name, for blocks that memory has no room for. It is gone when it is closed, or when the process is
 * killed.
 */
import fs from 'node:fs';

/** open(2): creates a file without a name in this directory. The same value on all architectures that Node knows. */
const temporaryFile = 0o20000000 | fs.constants.O_DIRECTORY;

export class SpillFile {
  readonly #fd: number;

  private constructor(fd: number) {
    this.#fd = fd;
  }

  /** Returns undefined if the filesystem of the directory does not support such files, or refuses to make one. */
  static open(directory: string): SpillFile | undefined {
    try {
      return new SpillFile(fs.openSync(directory, temporaryFile | fs.constants.O_RDWR, 0o600));
    } catch {
      return undefined;
    }
  }

  /** Returns false if the filesystem has no room. */
  write(data: Uint8Array, position: number): boolean {
    try {
      for (let done = 0; done < data.length;)
        done += fs.writeSync(this.#fd, data, done, data.length - done, position + done);
      return true;
    } catch {
      return false;
    }
  }

  read(into: Uint8Array, position: number): void {
    for (let done = 0; done < into.length;) {
      const got = fs.readSync(this.#fd, into, done, into.length - done, position + done);
      if (got === 0) throw new Error(`the spill file ends at ${position + done}`);
      done += got;
    }
  }

  close(): void {
    fs.closeSync(this.#fd);
  }
}
