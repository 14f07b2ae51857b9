/**
 * The names of the chunks that a job has written to an image so far, by the number of the chunk: a sparse file
 * that all copying threads of the image share. It lives as long as the job. 32 bytes a chunk, so half a
 * GiB for each TiB written, and none of it in memory.
 *
 * An entry of zeros: the job has not written this chunk. `clearedName`: it reads as zeros now.
 */
import fs from 'node:fs';
import { Descriptor } from '../../base/descriptor.ts';
import { writing } from '../../base/files.ts';
import { nameLength } from '../names.ts';

/** No hash: two to the power of 256 minus one. */
export const clearedName: Buffer = Buffer.alloc(nameLength, 0xff);

export class NamesFile {
  readonly #file: Descriptor;
  readonly #path: string;

  private constructor(file: Descriptor, path: string) {
    this.#file = file;
    this.#path = path;
  }

  /** Makes the file, empty, in place of what was there. Throws FILE_ERROR. */
  static create(path: string): void {
    writing(path, () => fs.closeSync(fs.openSync(path, 'w', 0o600)));
  }

  static open(path: string): NamesFile {
    const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_NOATIME);
    return new NamesFile(new Descriptor(fd, path), path);
  }

  /** The entries of `count` chunks from `first` on, in a new buffer. */
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
