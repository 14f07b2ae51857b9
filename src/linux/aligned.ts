/**
 * Buffers whose address has the alignment that O_DIRECT needs. The allocation is larger by the alignment, and the
 * buffer is a view that begins at the right address. V8 never moves the memory of an ArrayBuffer.
 */
import { addressOf } from './libc.ts';

/** Enough for every device and filesystem with blocks of up to one page. */
export const defaultAlignment = 4096;

/** Returns a zeroed buffer of `bytes` bytes whose address is a multiple of `alignment` (a power of two). */
export function alignedBuffer(bytes: number, alignment: number = defaultAlignment): Buffer<ArrayBuffer> {
  const whole = Buffer.alloc(bytes + alignment);
  const start = misalignment(whole, alignment);
  return whole.subarray(start, start + bytes);
}

/** True if the address of the view's first byte is a multiple of `alignment`. */
export function isAligned(view: Uint8Array, alignment: number): boolean {
  return misalignment(view, alignment) === 0;
}

/** Bytes from the view's start to the next multiple of `alignment`. */
function misalignment(view: Uint8Array, alignment: number): number {
  const past = (baseModulo(view.buffer, alignment) + view.byteOffset) % alignment;
  return past === 0 ? 0 : alignment - past;
}

/** Cached addresses: to get an address takes microseconds, and readers need it before every read. */
const knownBases = new WeakMap<ArrayBufferLike, bigint>();

function baseModulo(buffer: ArrayBufferLike, alignment: number): number {
  let base = knownBases.get(buffer);
  if (base === undefined) {
    base = addressOf(new Uint8Array(buffer));
    knownBases.set(buffer, base);
  }
  return Number(base % BigInt(alignment));
}
