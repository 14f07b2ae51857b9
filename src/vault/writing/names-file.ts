/**
 * The names of the chunks that a job has written to an image, by chunk number. It is a sparse file that all copying
 * threads of the image share, and it exists as long as the job. It has 32 bytes per chunk, so half a GiB per TiB
 * written, and none of it is kept in memory.
 *
 * A zero entry: the job has not written this chunk. `clearedName`: the chunk now reads as zeros.
 */
import fs from 'node:fs';
import { Descriptor } from '../../base/descriptor.ts';
import { writing } from '../../base/files.ts';
import { nameLength } from '../names.ts';

/** Not a hash: all bits are set. */
export const clearedName: Buffer = Buffer.alloc(nameLength, 0xff);

export class NamesFile {
  readonly #file: Descriptor;
  readonly #path: string;

  private constructor(file: Descriptor, path: string) {
    this.#file = file;
    this.#path = path;
  }

  /** Creates the empty file and replaces an existing one. Throws FILE_ERROR. */
  static create(path: string): void {
    writing(path, () => fs.closeSync(fs.openSync(path, 'w', 0o600)));
  }

  static open(path: string): NamesFile {
    const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_NOATIME);
    return new NamesFile(new Descriptor(fd, path), path);
  }

  /** Returns the entries of `count` chunks from `first`, in a new buffer. */
  read(first: number, count: number): Buffer {
    const names = Buffer.alloc(count * nameLength);
    for (let done = 0; done < names.length;) {
      const got = fs.readSync(this.#file.fd, names, done, names.length - done, first * nameLength + done);
      if (got === 0) break;
      done += got;
    }
    return names;
  }

  /** Throws FILE_ERROR. */
  write(first: number, names: Uint8Array): void {
    writing(this.#path, () => {
      for (let done = 0; done < names.length;)
        done += fs.writeSync(this.#file.fd, names, done, names.length - done, first * nameLength + done);
    });
  }

  close(): void {
    this.#file.close();
  }
}
