/**
 * Splits a byte stream into pieces of requested sizes, for any sizes of the received chunks. Buffers are never joined. A
 * piece within one chunk is a view of the chunk. A piece over several chunks is collected in a scratch buffer. Bulk payload
 * is copied directly to its destination.
 *
 * Usage: `onPiece` is called with each complete piece and requests the next one (`wantBytes`, `wantInto`, `wantSkip`) before
 * it returns. If it requests nothing, the rest of the stream waits in `takeRest()`.
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

  /** Requests a piece of `length` bytes, as a view that is valid only during the callback. */
  wantBytes(length: number): void {
    this.#want('bytes', length);
    if (this.#scratch.length < length && this.#mode === 'bytes')
      this.#scratch = Buffer.allocUnsafeSlow(length);
  }

  /** Requests bytes to fill `destination`. The callback gets an empty buffer. */
  wantInto(destination: Uint8Array): void {
    this.#want('into', destination.length);
    this.#into = destination;
  }

  /** Requests to discard `length` bytes. The callback gets an empty buffer. */
  wantSkip(length: number): void {
    this.#want('skip', length);
  }

  /** Withdraws the request. */
  stop(): void {
    this.#mode = 'idle';
  }

  /** Delivers no further piece until `release`; received bytes wait. Used for back-pressure. */
  hold(): void {
    this.#held = true;
  }

  /** Ends a hold and delivers the waiting pieces. Throws the errors of `onPiece`. */
  release(): void {
    this.#held = false;
    this.push(empty);
  }

  /**
   * The buffer for the next bytes of the stream, for a caller that can receive directly into it and then calls `filled`.
   * Undefined if the next piece is not bulk payload.
   */
  get destination(): Uint8Array | undefined {
    if (this.#mode !== 'into' || this.#held || this.#rest.length > 0) return undefined;
    return this.#into.subarray(this.#got);
  }

  /** Reports that the next `bytes` bytes of the stream were put at the start of `destination`. */
  filled(bytes: number): void {
    if (this.#mode !== 'into' || bytes > this.#need - this.#got)
      throw new RangeError(`${bytes} bytes were received, but only ${this.#need - this.#got} are wanted`);
    this.#got += bytes;
    if (this.#got === this.#need) this.push(empty);
  }

  /** True while a piece is only partly received. */
  get midPiece(): boolean {
    return this.#mode !== 'idle' && this.#got > 0;
  }

  /** Returns the received bytes that no request covers. */
  takeRest(): Buffer {
    const rest = this.#rest;
    this.#rest = empty;
    return rest;
  }

  /** Takes the next bytes of the stream. Throws the errors of `onPiece`. The cutter is then not usable any more. */
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
    // Copied, because the caller may reuse the buffer of the chunk.
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
