/**
 * The byte stream of one client: a socket or any duplex stream. It pushes received bytes to the current receiver, applies
 * back-pressure, collects replies into few writes, and counts the queued bytes.
 *
 * A wire over a descriptor reads into its own buffer, or directly into the receiver's buffer for a payload, instead of a new
 * buffer for each read as in Node.
 */
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { KiB } from '../../base/bytes.ts';

/** The receiver of the bytes that arrive. An error from it ends the connection. */
export interface Receiver {
  /** Takes a chunk, which is valid only during the call. */
  push(chunk: Uint8Array): void;
  /** A buffer into which the next bytes may be received directly. */
  readonly destination?: Uint8Array | undefined;
  /** Reports the number of bytes that were put into `destination`. */
  filled?(bytes: number): void;
}

/** The smallest destination that is worth a direct read. Smaller ones are copied from the read buffer. */
const worthDirect = 16 * KiB;
const readBufferBytes = 64 * KiB;
const headBytes = 4 * KiB;
/** Replies are collected up to this size for one write. */
const gatherBytes = 128 * KiB;
/** The most bytes of one write. */
const batchBytes = 512 * KiB;
/** The number of unsent bytes at which there is room for more. */
const fewBytes = 64 * KiB;

export class Wire {
  readonly stream: Duplex;
  /** Resolves when the stream is closed, for any reason; `failure` is the error, if any. */
  readonly closed: Promise<void>;
  #failure: Error | undefined;
  #receiver: Receiver | undefined;
  #onEnd: (() => void) | undefined;
  #onSent: (() => void) | undefined;
  #gathered: Part[] = [];
  /** Parts that wait until the kernel has taken the current batch. */
  readonly #queue: Part[] = [];
  #sending = false;
  #ending = false;
  #sent = 0;
  readonly #roomWanted: (() => void)[] = [];
  #gatheredBytes = 0;
  #gathering = false;
  #pending = 0;
  #ended = false;
  /** The last bytes were received directly into their destination. */
  #direct = false;

  constructor(stream: Duplex) {
    this.stream = stream;
    stream.on('error', (error: Error) => (this.#failure ??= error));
    stream.on('end', () => {
      this.#ended = true;
      this.#onEnd?.();
    });
    this.closed = new Promise((resolve) => {
      stream.once('close', () => {
        this.#ended = true;
        this.#onEnd?.();
        this.#drop();
        resolve();
      });
    });
  }

  /** Returns a wire that owns the descriptor of a connected socket. */
  static overDescriptor(fd: number): Wire {
    const readBuffer = Buffer.allocUnsafeSlow(readBufferBytes);
    // The socket asks for the first buffer in its constructor, before the wire exists.
    const made: { wire?: Wire } = {};
    const socket = new Socket({
      fd,
      allowHalfOpen: true,
      onread: {
        buffer: () => made.wire?.placeFor(readBuffer) ?? readBuffer,
        callback: (bytes, buffer) => {
          made.wire?.arrivedIn(buffer.buffer === readBuffer.buffer ? readBuffer.subarray(0, bytes) : bytes);
          return true;
        },
      },
    });
    const wire = new Wire(socket);
    made.wire = wire;
    socket.setNoDelay(true);
    // Detects a client that disappeared without closing, after some minutes.
    socket.setKeepAlive(true, 60_000);
    return wire;
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  /** True when no more bytes will arrive. */
  get ended(): boolean {
    return this.#ended;
  }

  /** True when nothing can be sent any more. */
  get broken(): boolean {
    return this.stream.destroyed;
  }

  /** Bytes that the kernel has taken. */
  get sentBytes(): number {
    return this.#sent;
  }

  /** Bytes given to `send` that the kernel has not taken yet. */
  get pendingBytes(): number {
    return this.#pending;
  }

  /**
   * Sends the stream to `receiver`, from the next byte on. Calls `onEnd` when no more bytes will arrive, and `onSent`
   * whenever the kernel has taken bytes.
   */
  receive(receiver: Receiver, onEnd: () => void, onSent?: () => void): void {
    const first = this.#receiver === undefined;
    this.#receiver = receiver;
    this.#onEnd = onEnd;
    this.#onSent = onSent;
    if (first) this.stream.on('data', (chunk: Buffer) => this.arrivedIn(chunk));
    if (this.#ended) onEnd();
    else this.stream.resume();
  }

  pause(): void {
    this.stream.pause();
  }

  resume(): void {
    this.stream.resume();
  }

  /** Queues bytes. Always calls `release` when they are no longer needed, also after an error. */
  send(parts: readonly Uint8Array[], release?: () => void): void {
    for (const part of parts) {
      this.#gathered.push({ bytes: part, release: undefined });
      this.#gatheredBytes += part.length;
      this.#pending += part.length;
    }
    if (release !== undefined) this.#gathered.push({ bytes: nothing, release });
    if (!this.#gathering || this.#gatheredBytes >= gatherBytes) this.#flush();
  }

  /** Resolves when few bytes wait for the kernel, or when nothing can be sent any more. */
  room(): Promise<void> {
    if (this.#pending <= fewBytes || this.broken) return Promise.resolve();
    return new Promise((resolve) => this.#roomWanted.push(resolve));
  }

  /** Sends the queued bytes and then ends our side. `closed` resolves when the peer has ended its side too. */
  end(): void {
    this.#ending = true;
    this.#flush();
    // Ignore further bytes of the peer, but continue to read, so that its end is noticed.
    this.#receiver = { push: () => undefined };
    this.#onSent = undefined;
    this.stream.resume();
  }

  destroy(error?: Error): void {
    this.#failure ??= error;
    this.stream.destroy();
  }

  private placeFor(readBuffer: Buffer): Uint8Array {
    const direct = this.#receiver?.destination;
    const wasDirect = this.#direct;
    this.#direct = direct !== undefined && direct.length >= worthDirect;
    if (direct !== undefined && this.#direct) return direct;
    // Large payloads follow each other: read little more than the next header, and the payload directly.
    return wasDirect ? readBuffer.subarray(0, headBytes) : readBuffer;
  }

  /** Passes on a chunk, or the number of bytes in the receiver's destination. */
  private arrivedIn(place: Uint8Array | number): void {
    this.#gather((receiver) => (typeof place === 'number' ? receiver.filled?.(place) : receiver.push(place)));
  }

  /** Collects the replies while the receiver processes a chunk. */
  #gather(deal: (receiver: Receiver) => void): void {
    if (this.#receiver === undefined) return;
    this.#gathering = true;
    try {
      deal(this.#receiver);
    } catch (error) {
      this.#failure ??= error instanceof Error ? error : new Error(String(error));
      this.stream.destroy();
    } finally {
      this.#gathering = false;
      this.#flush();
    }
  }

  #flush(): void {
    this.#queue.push(...this.#gathered);
    this.#gathered = [];
    this.#gatheredBytes = 0;
    this.#pump();
  }

  /** Gives the kernel one batch at a time, so that `pendingBytes` shows the progress of a slow reader. */
  #pump(): void {
    if (this.#sending) return;
    const { stream } = this;
    if (stream.destroyed) {
      this.#drop();
      return;
    }
    const batch: Part[] = [];
    let bytes = 0;
    let part: Part | undefined;
    while (bytes < batchBytes && (part = this.#queue.shift()) !== undefined) {
      const most = batchBytes - bytes;
      if (part.bytes.length > most) {
        this.#queue.unshift({ bytes: part.bytes.subarray(most), release: part.release });
        part = { bytes: part.bytes.subarray(0, most), release: undefined };
      }
      batch.push(part);
      bytes += part.bytes.length;
    }
    if (batch.length === 0) {
      if (this.#ending) stream.end();
      this.#ending = false;
      return;
    }
    this.#sending = true;
    stream.cork();
    for (const each of batch.slice(0, -1)) if (each.bytes.length > 0) stream.write(each.bytes);
    stream.write(batch.at(-1)!.bytes, () => {
      this.#sending = false;
      this.#pending -= bytes;
      this.#sent += bytes;
      for (const each of batch) each.release?.();
      this.#onSent?.();
      this.#tellOfRoom();
      this.#pump();
    });
    stream.uncork();
  }

  /** Releases the queue when nothing can be sent any more. */
  #drop(): void {
    const left = this.#queue.splice(0);
    this.#pending -= left.reduce((sum, { bytes }) => sum + bytes.length, 0);
    for (const { release } of left) release?.();
    this.#tellOfRoom();
  }

  #tellOfRoom(): void {
    if (this.#pending > fewBytes && !this.broken) return;
    for (const resolve of this.#roomWanted.splice(0)) resolve();
  }
}

interface Part {
  readonly bytes: Uint8Array;
  readonly release: (() => void) | undefined;
}

const nothing = Buffer.alloc(0);
