/**
 * One client's byte stream: a socket or any duplex stream, with what the protocol needs of it: bytes pushed
 * to the present receiver, back-pressure, replies gathered into few writes, and the count of what is queued.
 *
 * A wire over a descriptor reads into a buffer of its own, or straight to where the receiver wants a payload,
 * instead of Node's one fresh buffer per read.
 */
import { Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { KiB } from '../../base/bytes.ts';

/** Who gets the bytes that arrive. Whatever it throws ends the connection. */
export interface Receiver {
  /** The chunk is only valid during the call. */
  push(chunk: Uint8Array): void;
  /** Where the next bytes may be received straight into. */
  readonly destination?: Uint8Array | undefined;
  /** So many bytes were put there. */
  filled?(bytes: number): void;
}

/** Below this a detour over the read buffer is cheaper than a read of its own. */
const worthDirect = 16 * KiB;
const readBufferBytes = 64 * KiB;
const headBytes = 4 * KiB;
/** Replies are gathered until they make a write of this size. */
const gatherBytes = 128 * KiB;
/** What the kernel is given at once. */
const batchBytes = 512 * KiB;
/** Bytes under way at which there is room for more. */
const fewBytes = 64 * KiB;

export class Wire {
  readonly stream: Duplex;
  /** Resolves when the stream is closed, for whatever reason; `failure` says which. */
  readonly closed: Promise<void>;
  #failure: Error | undefined;
  #receiver: Receiver | undefined;
  #onEnd: (() => void) | undefined;
  #onSent: (() => void) | undefined;
  #gathered: Part[] = [];
  /** Waits for the batch that the kernel is taking. */
  readonly #queue: Part[] = [];
  #sending = false;
  #ending = false;
  #sent = 0;
  readonly #roomWanted: (() => void)[] = [];
  #gatheredBytes = 0;
  #gathering = false;
  #pending = 0;
  #ended = false;
  /** The last bytes went straight to their destination. */
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

  /** Takes over the descriptor of a connected socket. */
  static overDescriptor(fd: number): Wire {
    const readBuffer = Buffer.allocUnsafeSlow(readBufferBytes);
    // The first buffer is asked for while the socket is being made.
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
    // A client that vanished without a word is noticed after some minutes.
    socket.setKeepAlive(true, 60_000);
    return wire;
  }

  get failure(): Error | undefined {
    return this.#failure;
  }

  /** True once no more bytes will come. */
  get ended(): boolean {
    return this.#ended;
  }

  /** True once nothing can be sent any more. */
  get broken(): boolean {
    return this.stream.destroyed;
  }

  /** Bytes that the kernel has taken. */
  get sentBytes(): number {
    return this.#sent;
  }

  /** Bytes handed to `send` that the kernel has not taken yet. */
  get pendingBytes(): number {
    return this.#pending;
  }

  /**
   * Hands the stream to `receiver`, from the next byte on; `onEnd` is called once no more will come, and
   * `onSent` whenever the kernel has taken something.
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

  /** Queues bytes; `release` is called when they are no longer needed, in every case. */
  send(parts: readonly Uint8Array[], release?: () => void): void {
    for (const part of parts) {
      this.#gathered.push({ bytes: part, release: undefined });
      this.#gatheredBytes += part.length;
      this.#pending += part.length;
    }
    if (release !== undefined) this.#gathered.push({ bytes: nothing, release });
    if (!this.#gathering || this.#gatheredBytes >= gatherBytes) this.#flush();
  }

  /** Resolves once few bytes wait for the kernel, or nothing can be sent any more. */
  room(): Promise<void> {
    if (this.#pending <= fewBytes || this.broken) return Promise.resolve();
    return new Promise((resolve) => this.#roomWanted.push(resolve));
  }

  /** Sends what waits and then ends our side; `closed` resolves when the other has ended too. */
  end(): void {
    this.#ending = true;
    this.#flush();
    // The peer has nothing more to say to us; read on, so that its end is noticed.
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
    // After one large payload comes the next: read little more than its header, the rest directly.
    return wasDirect ? readBuffer.subarray(0, headBytes) : readBuffer;
  }

  /** A chunk, or how many bytes lie in the receiver's destination. */
  private arrivedIn(place: Uint8Array | number): void {
    this.#gather((receiver) => (typeof place === 'number' ? receiver.filled?.(place) : receiver.push(place)));
  }

  /** While a chunk is dealt with replies are gathered. */
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

  /** Hands the kernel one batch at a time, so that a slow reader's progress can be seen in `pendingBytes`. */
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

  /** Nothing can be sent any more. */
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
