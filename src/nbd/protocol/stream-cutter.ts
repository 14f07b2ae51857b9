/**
 * Cuts a byte stream into pieces of sizes asked for one after the other, however the bytes arrive, without
 * ever joining buffers: a piece that lies whole in a chunk is handed out as a view of it, one that straddles
 * chunks is gathered in a scratch buffer, and bulk payload is copied straight to where it belongs.
 *
 * Usage: `onPiece` is called with each complete piece and asks for the next one (`wantBytes`, `wantInto`,
 * `wantSkip`) before it returns; where it asks for nothing, the rest of the stream waits in `takeRest()`.
 */
export class StreamCutter {
  readonly #onPiece: (piece: Buffer) => void;
  #mode: 'idle' | 'bytes' | 'into' | 'skip' = 'idle';
  #need = 0;
  #got = 0;
  #scratch = Buffer.allocUnsafeSlow(64);
  #into: Uint8Array = empty;
  #rest: Buffer = empty;
  #pushing = false;
  #held = false;

  constructor(onPiece: (piece: Buffer) => void) {
    this.#onPiece = onPiece;
  }

  /** Next piece: `length` bytes, as a view that is valid only during the callback. */
  wantBytes(length: number): void {
    this.#want('bytes', length);
    if (this.#scratch.length < length && this.#mode === 'bytes')
      this.#scratch = Buffer.allocUnsafeSlow(length);
  }

  /** Next piece: as many bytes as `destination` has, copied there. The callback gets an empty buffer. */
  wantInto(destination: Uint8Array): void {
    this.#want('into', destination.length);
    this.#into = destination;
  }

  /** Next piece: `length` bytes that nobody wants. The callback gets an empty buffer. */
  wantSkip(length: number): void {
    this.#want('skip', length);
  }

  /** Asks for nothing from here on. */
  stop(): void {
    this.#mode = 'idle';
  }

  /** No further piece is handed out until `release`; bytes that arrive meanwhile wait. For back-pressure. */
  hold(): void {
    this.#held = true;
  }

  /** Ends a hold and hands out what waited. Throws what `onPiece` throws. */
  release(): void {
    this.#held = false;
    this.push(empty);
  }

  /**
   * Where the next bytes of the stream belong, for a caller who can receive them straight into place and then
   * calls `filled`; undefined while bulk payload is not what comes next.
   */
  get destination(): Uint8Array | undefined {
    if (this.#mode !== 'into' || this.#held || this.#rest.length > 0) return undefined;
    return this.#into.subarray(this.#got);
  }

  /** Says that the next `bytes` bytes of the stream now lie at the start of `destination`. */
  filled(bytes: number): void {
    if (this.#mode !== 'into' || bytes > this.#need - this.#got)
      throw new RangeError(`${bytes} bytes were put where ${this.#need - this.#got} are wanted`);
    this.#got += bytes;
    if (this.#got === this.#need) this.push(empty);
  }

  /** True where a piece has begun to arrive but is not complete. */
  get midPiece(): boolean {
    return this.#mode !== 'idle' && this.#got > 0;
  }

  /** What arrived and nobody asked for. */
  takeRest(): Buffer {
    const rest = this.#rest;
    this.#rest = empty;
    return rest;
  }

  /** Takes the next bytes of the stream. Throws what `onPiece` throws; the cutter is then of no more use. */
  push(chunk: Uint8Array): void {
    let bytes = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    if (this.#pushing) throw new Error('push was called from within onPiece');
    if (this.#rest.length > 0) bytes = Buffer.concat([this.takeRest(), bytes]);
    this.#pushing = true;
    try {
      this.#cut(bytes);
    } finally {
      this.#pushing = false;
    }
  }

  #cut(bytes: Buffer): void {
    let at = 0;
    while (!this.#held && this.#mode !== 'idle' && (at < bytes.length || this.#got === this.#need)) {
      const take = Math.min(this.#need - this.#got, bytes.length - at);
      let piece: Buffer = empty;
      if (this.#mode === 'bytes') {
        if (take === this.#need) piece = bytes.subarray(at, at + take);
        else {
          bytes.copy(this.#scratch, this.#got, at, at + take);
          piece = this.#scratch.subarray(0, this.#need);
        }
      } else if (this.#mode === 'into' && take > 0) {
        bytes.copy(this.#into, this.#got, at, at + take);
      }
      at += take;
      this.#got += take;
      if (this.#got < this.#need) return;
      this.#mode = 'idle';
      this.#into = empty;
      this.#onPiece(piece);
    }
    // A copy: the chunk may be a buffer that the caller fills again.
    if (at < bytes.length) this.#rest = Buffer.from(bytes.subarray(at));
  }

  #want(mode: 'bytes' | 'into' | 'skip', length: number): void {
    if (this.#mode !== 'idle') throw new Error(`a piece of ${this.#need} bytes is already wanted`);
    this.#mode = mode;
    this.#need = length;
    this.#got = 0;
  }
}

const empty: Buffer = Buffer.alloc(0);
