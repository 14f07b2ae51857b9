/**
 * Reads the bytes of the handshake piece by piece. Bytes that a client sends ahead wait up to a limit. Beyond the limit,
 * nothing is read from the wire.
 */
import { KiB } from '../../base/bytes.ts';
import type { Receiver, Wire } from './wire.ts';

const mostAhead = 64 * KiB;

export class HandshakeInput implements Receiver {
  readonly #wire: Wire;
  /** The chunks are joined when a piece is complete, so that many small chunks cost no more than a large one. */
  #chunks: Buffer[] = [];
  #bytes = 0;
  #wanted: { length: number; resolve: (piece: Buffer) => void; reject: (error: Error) => void } | undefined;

  constructor(wire: Wire) {
    this.#wire = wire;
    wire.receive(this, () => {
      this.#wanted?.reject(new ClientGone());
      this.#wanted = undefined;
    });
  }

  push(chunk: Uint8Array): void {
    // Copied, because the chunk is only valid during the call.
    this.#chunks.push(Buffer.from(chunk));
    this.#bytes += chunk.length;
    this.#serve();
    if (this.#bytes > mostAhead && this.#wanted === undefined) this.#wire.pause();
  }

  /** Returns the next `length` bytes. Rejects with ClientGone if the stream ends first. */
  take(length: number): Promise<Buffer> {
    return new Promise((resolve, reject) => {
      this.#wanted = { length, resolve, reject };
      if (this.#serve()) return;
      if (this.#wire.ended) reject(new ClientGone());
      else this.#wire.resume();
    });
  }

  /** Reads and discards `length` bytes, in bounded memory. */
  async skip(length: number): Promise<void> {
    for (let left = length; left > 0; left -= mostAhead) await this.take(Math.min(left, mostAhead));
  }

  /** Returns the bytes that were sent ahead. */
  rest(): Buffer {
    return this.#join();
  }

  #join(): Buffer {
    if (this.#chunks.length !== 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0]!;
  }

  /** Delivers the wanted piece if it is complete. Returns true if no piece is wanted any more. */
  #serve(): boolean {
    const wanted = this.#wanted;
    if (wanted === undefined) return true;
    if (this.#bytes < wanted.length) return false;
    const all = this.#join();
    const piece = all.subarray(0, wanted.length);
    this.#chunks = [all.subarray(wanted.length)];
    this.#bytes -= wanted.length;
    this.#wanted = undefined;
    wanted.resolve(piece);
    return true;
  }
}

/** The client ended the connection. No reply or report is needed. */
export class ClientGone extends Error {
  constructor() {
    super('the client has disconnected');
    this.name = 'ClientGone';
  }
}
