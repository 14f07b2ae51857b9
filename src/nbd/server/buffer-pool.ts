/**
 * A pool of reusable buffers, so that a busy connection allocates nothing per request. One pool serves all connections of a
 * thread. The memory budgets of the connections limit the buffers in use; `maximum` limits the idle ones.
 */
import { KiB, MiB } from '../../base/bytes.ts';

const smallest = 4 * KiB;

export class BufferPool {
  readonly #idle = new Map<number, Buffer[]>();
  readonly #maximum: number;
  #idleBytes = 0;

  /** `maximum`: the most bytes in idle buffers. */
  constructor(maximum: number = 8 * MiB) {
    this.#maximum = maximum;
  }

  /** Returns a buffer of `length` bytes with undefined contents. */
  take(length: number): Buffer {
    const size = sizeClass(length);
    const idle = this.#idle.get(size)?.pop();
    if (idle !== undefined) this.#idleBytes -= size;
    return (idle ?? Buffer.allocUnsafeSlow(size)).subarray(0, length);
  }

  /** Returns a buffer of `take` to the pool. The caller must not use it any more. */
  give(buffer: Buffer): void {
    const size = buffer.buffer.byteLength;
    if (this.#idleBytes + size > this.#maximum) return;
    this.#idleBytes += size;
    const whole = Buffer.from(buffer.buffer);
    const idle = this.#idle.get(size);
    if (idle === undefined) this.#idle.set(size, [whole]);
    else idle.push(whole);
  }
}

/** Returns the memory of a buffer of `length` bytes: the next power of two, so that there are few sizes. */
export function sizeClass(length: number): number {
  return length <= smallest ? smallest : 2 ** Math.ceil(Math.log2(length));
}
