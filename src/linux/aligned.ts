/**
 * Buffers whose address is a multiple of what O_DIRECT asks for: an allocation that is larger by the
 * alignment, cut at the right place. V8 never moves the memory behind an ArrayBuffer.
 */
import { addressOf } from './libc.ts';

/** Enough for every device and filesystem with blocks of up to one page. */
export const defaultAlignment = 4096;

/** A zeroed buffer of `bytes` whose address is a multiple of `alignment` (a power of two). */
export function alignedBuffer(bytes: number, alignment: number = defaultAlignment): Buffer<ArrayBuffer> {
  const whole = Buffer.alloc(bytes + alignment);
  const start = misalignment(whole, alignment);
  return whole.subarray(start, start + bytes);
}

/** True where the address of the view's first byte is a multiple of `alignment`. */
export function isAligned(view: Uint8Array, alignment: number): boolean {
  return misalignment(view, alignment) === 0;
}

/** Bytes from the view's start to the next multiple of `alignment`. */
function misalignment(view: Uint8Array, alignment: number): number {
  const past = (baseModulo(view.buffer, alignment) + view.byteOffset) % alignment;
  return past === 0 ? 0 : alignment - past;
}

/** Asking for an address costs microseconds, and readers ask before every read. */
const knownBases = new WeakMap<ArrayBufferLike, bigint>();

function baseModulo(buffer: ArrayBufferLike, alignment: number): number {
  let base = knownBases.get(buffer);
  if (base === undefined) {
    base = addressOf(new Uint8Array(buffer));
    knownBases.set(buffer, base);
  }
  return Number(base % BigInt(alignment));
}
