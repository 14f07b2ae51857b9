/**
 * Direct calls to the zstd of the runtime. Node's own functions make a context and buffers for each call. On pieces of
 * 64 KiB, that takes a fourth of the time of compression and half the time of decompression. On data that cannot be
 * compressed, it takes three fourths (measured with Node 24). Contexts are in memory of V8 (`ZSTD_initStatic…` of
 * zstd.h), so a thread that ends leaves no memory behind. If the runtime does not export zstd, node:zlib is used.
 */
import zlib from 'node:zlib';
import { type Signature, runtimeFunctions } from './runtime.ts';

/** zstd.h: ZSTD_c_compressionLevel and ZSTD_c_windowLog of ZSTD_cParameter. */
const compressionLevel = 100;
const windowLog = 101;

/** Longest input of a `ZstdCompressor`, bytes: 2 to the power of its windowLog. */
export const zstdLongest = 1024 * 1024;

type Pointer = unknown;

/** Functions of zstd. Those that return a size return a negative number for an error (`-ZSTD_ErrorCode`). */
interface Functions {
  createCCtxParams(): Pointer;
  initCCtxParams(params: Pointer, level: number): number;
  setCCtxParam(params: Pointer, parameter: number, value: number): number;
  freeCCtxParams(params: Pointer): number;
  estimateCCtx(params: Pointer): number;
  estimateDCtx(): number;
  initCCtx(memory: Uint8Array, size: number): Pointer;
  initDCtx(memory: Uint8Array, size: number): Pointer;
  setParameter(context: Pointer, parameter: number, value: number): number;
  compress(context: Pointer, into: Uint8Array, room: number, data: Uint8Array, length: number): number;
  decompress(context: Pointer, into: Uint8Array, room: number, data: Uint8Array, length: number): number;
}

const signatures: Readonly<Record<keyof Functions, Signature>> = {
  createCCtxParams: ['ZSTD_createCCtxParams', 'void *'],
  initCCtxParams: ['ZSTD_CCtxParams_init', 'int64_t', 'void *', 'int'],
  setCCtxParam: ['ZSTD_CCtxParams_setParameter', 'int64_t', 'void *', 'int', 'int'],
  freeCCtxParams: ['ZSTD_freeCCtxParams', 'int64_t', 'void *'],
  estimateCCtx: ['ZSTD_estimateCCtxSize_usingCCtxParams', 'int64_t', 'void *'],
  estimateDCtx: ['ZSTD_estimateDCtxSize', 'int64_t'],
  initCCtx: ['ZSTD_initStaticCCtx', 'void *', 'void *', 'size_t'],
  initDCtx: ['ZSTD_initStaticDCtx', 'void *', 'void *', 'size_t'],
  setParameter: ['ZSTD_CCtx_setParameter', 'int64_t', 'void *', 'int', 'int'],
  compress: ['ZSTD_compress2', 'int64_t', 'void *', 'void *', 'size_t', 'const void *', 'size_t'],
  decompress: ['ZSTD_decompressDCtx', 'int64_t', 'void *', 'void *', 'size_t', 'const void *', 'size_t'],
};

const functions = runtimeFunctions<Functions>(signatures);

/** True if the runtime's own zstd is called directly. @internal */
export const hasDirectZstd = functions !== undefined;

/** Compresses pieces of at most `zstdLongest` bytes, each into its own frame. For one thread. */
export class ZstdCompressor {
  readonly #level: number;
  readonly #direct:
    { readonly zstd: Functions; readonly context: Pointer; readonly memory: Buffer } | undefined;
  readonly #into: Buffer;

  /** `level`: 1 to 19. If `direct` is false, node:zlib is used. */
  constructor(level: number, { direct = true }: { readonly direct?: boolean } = {}) {
    this.#level = level;
    this.#direct = direct && functions !== undefined ? makeContext(functions, level) : undefined;
    // ZSTD_compressBound. Memory that is never written costs nothing.
    this.#into =
      this.#direct === undefined ? Buffer.alloc(0) : Buffer.allocUnsafeSlow(zstdLongest + (zstdLongest >> 8));
  }

  /** Returns the frame, valid until the next call; undefined if it is not shorter than the data. */
  compress(data: Uint8Array): Uint8Array | undefined {
    const length = this.#compressDirectly(data);
    const frame = length === undefined ? compressByZlib(data, this.#level) : this.#into.subarray(0, length);
    return frame.length < data.length ? frame : undefined;
  }

  #compressDirectly(data: Uint8Array): number | undefined {
    if (this.#direct === undefined) return undefined;
    const { zstd, context } = this.#direct;
    const length = zstd.compress(context, this.#into, this.#into.length, data, data.length);
    return length < 0 ? undefined : length;
  }
}

function makeContext(
  zstd: Functions,
  level: number,
): { zstd: Functions; context: Pointer; memory: Buffer } | undefined {
  const params = zstd.createCCtxParams();
  zstd.initCCtxParams(params, level);
  zstd.setCCtxParam(params, windowLog, Math.log2(zstdLongest));
  const size = zstd.estimateCCtx(params);
  zstd.freeCCtxParams(params);
  if (size < 0) return undefined;
  const memory = Buffer.allocUnsafeSlow(size);
  const context = zstd.initCCtx(memory, size);
  if (context === null || zstd.setParameter(context, compressionLevel, level) < 0) return undefined;
  return { zstd, context, memory };
}

function compressByZlib(data: Uint8Array, level: number): Buffer {
  return zlib.zstdCompressSync(data, {
    chunkSize: data.length + 1024,
    // zstd chooses the size of its tables by this length: a tenth faster on pieces of 64 KiB.
    pledgedSrcSize: data.length,
    params: { [zlib.constants.ZSTD_c_compressionLevel]: level },
  });
}

/** Decompresses frames whose length is known. For one thread. */
export class ZstdDecompressor {
  readonly #direct:
    { readonly zstd: Functions; readonly context: Pointer; readonly memory: Buffer } | undefined;

  constructor({ direct = true }: { readonly direct?: boolean } = {}) {
    if (!direct || functions === undefined) return;
    const memory = Buffer.allocUnsafeSlow(functions.estimateDCtx());
    const context = functions.initDCtx(memory, memory.length);
    if (context !== null) this.#direct = { zstd: functions, context, memory };
  }

  /** Returns exactly `length` bytes, in a new buffer; undefined if the frame is invalid or has another length. */
  decompress(frame: Uint8Array, length: number): Buffer | undefined {
    if (this.#direct === undefined) return decompressByZlib(frame, length);
    const { zstd, context } = this.#direct;
    const plain = Buffer.allocUnsafeSlow(length);
    return zstd.decompress(context, plain, length, frame, frame.length) === length ? plain : undefined;
  }
}

function decompressByZlib(frame: Uint8Array, length: number): Buffer | undefined {
  try {
    const plain = zlib.zstdDecompressSync(frame, {
      chunkSize: Math.max(64, length),
      maxOutputLength: length,
    });
    return plain.length === length ? plain : undefined;
  } catch {
    return undefined;
  }
}
