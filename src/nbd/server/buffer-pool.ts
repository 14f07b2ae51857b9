/**
 * Buffers that are used again, so that a busy connection allocates nothing per request. One pool serves all
 * connections of a thread; what is out is bounded by the connections' own budgets, what lies idle by `maximum`.
 */
import { KiB, MiB } from '../../base/bytes.ts';

const smallest = 4 * KiB;

export class BufferPool {
  readonly #idle = new Map<number, Buffer[]>();
  readonly #maximum: number;
  #idleBytes = 0;

  /** `maximum` bytes may lie idle. */
  constructor(maximum: number = 8 * MiB) {
    this.#maximum = maximum;
  }

  /** A buffer of `length` bytes with anything in it. */
  take(length: number): Buffer {
    const size = sizeClass(length);
    const idle = this.#idle.get(size)?.pop();
    if (idle !== undefined) this.#idleBytes -= size;
    return (idle ?? Buffer.allocUnsafeSlow(size)).subarray(0, length);
  }

  /** Gives back what `take` gave; nobody may use it any more. */
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

/** The bytes that a buffer of `length` takes: the next power of two, so that few sizes exist. */
export function sizeClass(length: number): number {
  return length <= smallest ? smallest : 2 ** Math.ceil(Math.log2(length));
}
