/** A target that takes everything and keeps nothing: to measure how fast a device can be read. */
import { MiB } from '../base/bytes.ts';
import { AgentError } from '../base/errors.ts';
import type { Extent } from '../base/extents.ts';
import type { Target, TargetAbilities } from './target.ts';

/** `size` in bytes. */
export function openNullTarget(size: number): Target {
  return new NullTarget(size);
}

class NullTarget implements Target {
  readonly name = 'null';
  readonly size: number;
  readonly readOnly = false;
  readonly abilities: TargetAbilities = {
    flush: true,
    writeZeroes: true,
    trim: true,
    read: false,
    multiConnection: true,
    zeroMap: false,
  };
  readonly minimumBlock = 1;
  readonly maximumPayload = 32 * MiB;
  readonly depth = 16;
  #closed = false;

  constructor(size: number) {
    this.size = size;
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return this.#take(offset, data.length);
  }

  writeZeroes(offset: number, length: number): Promise<void> {
    return this.#take(offset, length);
  }

  trim(offset: number, length: number): Promise<void> {
    return this.#take(offset, length);
  }

  flush(): Promise<void> {
    return this.#take(0, 0);
  }

  read(): Promise<Uint8Array> {
    return Promise.reject(new AgentError('NOT_SUPPORTED', 'The null target keeps nothing to be read'));
  }

  async *zeroExtents(): AsyncGenerator<Extent> {
    // Nothing is known.
  }

  close(): Promise<void> {
    this.#closed = true;
    return Promise.resolve();
  }

  destroy(): void {
    this.#closed = true;
  }

  #take(offset: number, length: number): Promise<void> {
    if (this.#closed)
      return Promise.reject(new AgentError('TARGET_WRITE_ERROR', 'The null target is closed'));
    if (offset < 0 || length < 0 || offset + length > this.size)
      return Promise.reject(
        new RangeError(`${length} bytes at ${offset} pass the end of the null target at ${this.size}`),
      );
    return Promise.resolve();
  }
}
