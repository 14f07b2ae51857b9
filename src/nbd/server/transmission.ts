/**
 * The transmission phase of one connection: reads requests, calls the backend and sends replies, in any order. Requests in
 * progress are limited in bytes and in number. Beyond that, no further request is read from the wire. So the memory for a
 * client is bounded, even if it sends many requests at once or reads slowly.
 * doc/proto.md, "Transmission".
 */
import { MiB } from '../../base/bytes.ts';
import { NBD_CMD, NBD_CMD_FLAG, NBD_REPLY_FLAG, NBD_STATE } from '../protocol/constants.ts';
import {
  DATA_CHUNK_HEADER_BYTES,
  encodeBlockStatusChunk,
  encodeDataChunkHeader,
  encodeErrorChunk,
  encodeHoleChunk,
  encodeNoneChunk,
  encodeSimpleReply,
  CHUNK_HEADER_BYTES,
  HOLE_CHUNK_BYTES,
  SIMPLE_REPLY_BYTES,
} from '../protocol/reply.ts';
import { type Request, RequestDecoder, type RequestHandler } from '../protocol/request.ts';
import type { ExportBackend, MaybePromise } from './backend.ts';
import { type BufferPool, sizeClass } from './buffer-pool.ts';
import type { BudgetHolder, BudgetShare, MemoryBudget } from './memory-budget.ts';
import { type Refusal, refusal, refusalOf, type TransmissionTerms } from './request-checks.ts';
import type { Receiver, Wire } from './wire.ts';

/** The most bytes of payload in progress or waiting in the socket before a client must wait. One request may exceed it. */
const maximumBytesUnderWay = 4 * MiB;
/** The most requests in progress before a client must wait. */
const maximumRequestsUnderWay = 128;
/** The most bytes in a chunk of a structured read. */
const chunkBytes = 1 * MiB;
/** The most runs in one block status reply. The client asks again for more. */
const maximumRuns = 8192;

type Memory = NonNullable<ReturnType<BudgetShare['take']>>;

export interface TransmissionEvents {
  /** A request failed in the backend. Not called for malformed requests. */
  failed(command: number, refusal: Refusal): void;
}

export class Transmission implements Receiver, RequestHandler, BudgetHolder {
  readonly #wire: Wire;
  readonly #backend: ExportBackend;
  readonly #terms: TransmissionTerms;
  readonly #pool: BufferPool;
  readonly #events: TransmissionEvents;
  readonly #share: BudgetShare;
  /** Memory of the request whose payload is arriving, or that is delivered next. */
  #arriving: { give(): void } | undefined;
  #received = 0;
  /** Resolves when a reply in several pieces is sent. No other reply may be sent in between. */
  #streaming: Promise<undefined> | undefined;
  readonly #decoder = new RequestDecoder(this);
  #requests = 0;
  #bytes = 0;
  #held = false;
  #stopping = false;
  /** The number of confirmed writes, and of those that a flush has covered. */
  #written = 0;
  #flushed = 0;
  #idle: (() => void) | undefined;
  #finish!: () => void;
  /** Resolves when the client has sent NBD_CMD_DISC or has disconnected. */
  readonly finished = new Promise<void>((resolve) => (this.#finish = resolve));

  constructor(
    wire: Wire,
    backend: ExportBackend,
    terms: TransmissionTerms,
    pool: BufferPool,
    events: TransmissionEvents,
    budget: MemoryBudget,
  ) {
    this.#share = budget.join(this);
    this.#wire = wire;
    this.#backend = backend;
    this.#terms = terms;
    this.#pool = pool;
    this.#events = events;
  }

  /**
   * Takes over the wire. `rest` are bytes that the handshake has read but not used. Never throws: garbage in them ends the
   * connection like any other garbage, after the requests before it.
   */
  start(rest: Uint8Array): void {
    try {
      if (rest.length > 0) this.#decoder.push(rest);
    } catch (error) {
      this.#wire.destroy(error instanceof Error ? error : new Error(String(error)));
    }
    this.#wire.receive(
      this,
      () => this.#finish(),
      () => this.#relax(),
    );
  }

  push(chunk: Uint8Array): void {
    this.#received += chunk.length;
    this.#decoder.push(chunk);
  }

  get destination(): Uint8Array | undefined {
    return this.#decoder.destination;
  }

  filled(bytes: number): void {
    this.#received += bytes;
    this.#decoder.filled(bytes);
  }

  get moved(): number {
    return this.#received + this.#wire.sentBytes;
  }

  get waitsForClient(): boolean {
    return this.#wire.pendingBytes > 0 || (this.#arriving !== undefined && !this.#held);
  }

  wake(): void {
    this.#relax();
  }

  cutOff(error: Error): void {
    this.#wire.destroy(error);
  }

  /** Takes the memory for the request's payload, if the request will be executed. */
  admit(request: Request): boolean {
    if (refusal(request, this.#terms) !== undefined) return true;
    const memory = this.#memoryFor(request);
    if (memory === 0) return true;
    this.#arriving = this.#share.take(memory);
    if (this.#arriving === undefined) this.#hold();
    return this.#arriving !== undefined;
  }

  #memoryFor({ type, length }: Request): number {
    if (type === NBD_CMD.WRITE) return sizeClass(length);
    // The data of a read is sent in pieces.
    return type === NBD_CMD.READ && length > 0 ? sizeClass(Math.min(length, chunkBytes)) : 0;
  }

  /** Accepts no further request, and resolves when the requests in progress have ended. No request runs after that. */
  async drain(): Promise<void> {
    this.#stopping = true;
    this.#hold();
    this.#share.leave();
    this.#arriving?.give();
    if (this.#requests > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  /** True if there are confirmed writes that no flush has covered. */
  get unflushed(): boolean {
    return this.#written !== this.#flushed;
  }

  payloadFor(request: Request): Uint8Array | undefined {
    return refusal(request, this.#terms) === undefined ? this.#pool.take(request.length) : undefined;
  }

  request(request: Request, payload: Buffer | undefined): void {
    if (request.type === NBD_CMD.DISC) {
      this.#stopping = true;
      this.#hold();
      this.#finish();
      return;
    }
    this.#requests++;
    const memory = this.#arriving;
    this.#arriving = undefined;
    const cost = request.type === NBD_CMD.READ || payload !== undefined ? request.length : 0;
    this.#bytes += cost;
    // If the backend returns directly, this runs to its end at once.
    void this.#answer(request, payload, memory).finally(() => {
      this.#requests--;
      this.#bytes -= cost;
      if (payload !== undefined) this.#pool.give(payload);
      if (request.type !== NBD_CMD.READ) memory?.give();
      if (this.#requests === 0) this.#idle?.();
      this.#relax();
    });
    if (this.#requests >= maximumRequestsUnderWay || this.#load() >= maximumBytesUnderWay) this.#hold();
  }

  #load(): number {
    return this.#bytes + this.#wire.pendingBytes;
  }

  #hold(): void {
    if (this.#held) return;
    this.#held = true;
    this.#decoder.hold();
    this.#wire.pause();
  }

  /** Ends a hold when half of the limits is free again. */
  #relax(): void {
    // On a broken wire, no client would get the answers to the waiting requests.
    if (!this.#held || this.#stopping || this.#wire.broken) return;
    if (this.#requests > maximumRequestsUnderWay / 2 || this.#load() > maximumBytesUnderWay / 2) return;
    this.#held = false;
    try {
      this.#decoder.release();
    } catch (error) {
      this.#wire.destroy(error instanceof Error ? error : undefined);
      return;
    }
    // The waiting bytes may have caused a new hold.
    if (this.#isHeld()) return;
    this.#wire.resume();
  }

  #isHeld(): boolean {
    return this.#held;
  }

  async #answer(
    request: Request,
    payload: Uint8Array | undefined,
    memory: Memory | undefined,
  ): Promise<void> {
    const refused = refusal(request, this.#terms);
    if (refused !== undefined) {
      await this.#sendError(request, refused);
      return;
    }
    try {
      await this.#perform(request, payload, memory);
    } catch (error) {
      memory?.give();
      const told = refusalOf(error);
      this.#events.failed(request.type, told);
      await this.#sendError(request, told);
    }
  }

  /** Executes a request. Does not `await` direct results, so that cheap requests cost no turn of the event loop. */
  async #perform(
    request: Request,
    payload: Uint8Array | undefined,
    memory: Memory | undefined,
  ): Promise<void> {
    const backend = this.#backend;
    const { type, flags, offset, length } = request;
    let doing: MaybePromise<void> = undefined;
    switch (type) {
      case NBD_CMD.READ:
        return this.#terms.structured ? this.#readChunks(request, memory) : this.#readSimple(request, memory);
      case NBD_CMD.BLOCK_STATUS:
        return this.#status(request);
      case NBD_CMD.FLUSH:
        doing = this.#flush();
        break;
      case NBD_CMD.CACHE:
        doing = backend.cache?.(offset, length);
        break;
      case NBD_CMD.WRITE:
        if (payload !== undefined && length > 0) doing = backend.write(payload, offset);
        break;
      case NBD_CMD.TRIM:
        if (length > 0) doing = backend.trim(offset, length);
        break;
      case NBD_CMD.WRITE_ZEROES:
        if (length > 0)
          doing = backend.zero(offset, length, {
            hole: (flags & NBD_CMD_FLAG.NO_HOLE) === 0,
            fast: (flags & NBD_CMD_FLAG.FAST_ZERO) !== 0,
          });
    }
    if (doing instanceof Promise) await doing;
    if (type === NBD_CMD.WRITE || type === NBD_CMD.TRIM || type === NBD_CMD.WRITE_ZEROES) {
      this.#written++;
      if ((flags & NBD_CMD_FLAG.FUA) !== 0) await this.#flush();
    }
    while (this.#streaming !== undefined) await this.#streaming;
    this.#sendSimple(request, 0);
  }

  async #flush(): Promise<void> {
    const covered = this.#written;
    const flushing = this.#backend.flush();
    if (flushing instanceof Promise) await flushing;
    this.#flushed = Math.max(this.#flushed, covered);
  }

  async #readSimple(request: Request, memory: Memory | undefined): Promise<void> {
    const { offset, length } = request;
    const header = Buffer.allocUnsafe(SIMPLE_REPLY_BYTES);
    encodeSimpleReply(header, 0, 0, request.cookieHigh, request.cookieLow);
    await this.#sendData(header, offset, length, memory);
  }

  /**
   * Sends one reply with its data. Large data is sent in pieces. Each piece is read after the client has received the one
   * before, which limits the memory. No other reply can be sent in between. An error after the first piece ends the
   * connection, since the reply has already begun (doc/proto.md, "Simple reply message").
   */
  async #sendData(header: Buffer, offset: number, length: number, memory: Memory | undefined): Promise<void> {
    const end = offset + length;
    const first = await this.#readInto(offset, Math.min(length, chunkBytes));
    while (this.#streaming !== undefined) await this.#streaming;
    const isWhole = first.length === length;
    this.#wire.send([header, first], () => {
      this.#pool.give(first);
      if (isWhole) memory?.give();
    });
    if (isWhole) return;
    const { promise, resolve } = Promise.withResolvers<undefined>();
    this.#streaming = promise;
    try {
      for (let at = offset + first.length; at < end; at += chunkBytes) {
        await this.#wire.room();
        if (this.#wire.broken) break;
        const piece = await this.#readInto(at, Math.min(end - at, chunkBytes));
        this.#wire.send([piece], () => this.#pool.give(piece));
      }
    } catch (error) {
      this.#events.failed(NBD_CMD.READ, refusalOf(error));
      this.#wire.destroy(error instanceof Error ? error : undefined);
    } finally {
      memory?.give();
      this.#streaming = undefined;
      resolve(undefined);
    }
  }

  /** Sends a structured reply. Holes are sent as hole chunks; an error chunk names the offset of the error. */
  async #readChunks(request: Request, memory: Memory | undefined): Promise<void> {
    const { offset, length, cookieHigh, cookieLow } = request;
    if ((request.flags & NBD_CMD_FLAG.DF) !== 0 && length > 0) {
      const header = Buffer.allocUnsafe(DATA_CHUNK_HEADER_BYTES);
      encodeDataChunkHeader(header, 0, NBD_REPLY_FLAG.DONE, cookieHigh, cookieLow, offset, length);
      return this.#sendData(header, offset, length, memory);
    }
    const end = offset + length;
    let at = offset;
    let lastIsUnderWay = false;
    try {
      while (at < end) {
        let run = this.#backend.run?.(at, end - at);
        if (run instanceof Promise) run = await run;
        const hole = run !== undefined && run.hole && run.zero;
        const most = hole ? end - at : Math.min(end - at, chunkBytes);
        const take = Math.min(run?.length ?? most, most);
        const flags = at + take === end ? NBD_REPLY_FLAG.DONE : 0;
        if (hole) {
          const chunk = Buffer.allocUnsafe(HOLE_CHUNK_BYTES);
          while (this.#streaming !== undefined) await this.#streaming;
          encodeHoleChunk(chunk, 0, flags, cookieHigh, cookieLow, at, take);
          this.#wire.send([chunk]);
        } else {
          // Only one piece at a time waits for the client, for any size of the read.
          const taken = at > offset ? this.#wire.room() : undefined;
          if (taken !== undefined) await taken;
          if (this.#wire.broken) break;
          const data = this.#pool.take(take);
          const reading = this.#backend.read(data, at);
          if (reading instanceof Promise) await reading;
          const isLast = at + take === end;
          lastIsUnderWay = isLast;
          const header = Buffer.allocUnsafe(DATA_CHUNK_HEADER_BYTES);
          encodeDataChunkHeader(header, 0, flags, cookieHigh, cookieLow, at, take);
          while (this.#streaming !== undefined) await this.#streaming;
          this.#wire.send([header, data], () => {
            this.#pool.give(data);
            if (isLast) memory?.give();
          });
        }
        at += take;
      }
    } catch (error) {
      const { error: number, message } = refusalOf(error);
      this.#events.failed(request.type, { error: number, message });
      const text = message.slice(0, 1000);
      memory?.give();
      while (this.#streaming !== undefined) await this.#streaming;
      this.#wire.send([encodeErrorChunk(NBD_REPLY_FLAG.DONE, cookieHigh, cookieLow, number, text, at)]);
      return;
    }
    if (!lastIsUnderWay) memory?.give();
    if (length > 0) return;
    while (this.#streaming !== undefined) await this.#streaming;
    this.#sendNone(request);
  }

  async #readInto(offset: number, length: number): Promise<Buffer> {
    const data = this.#pool.take(length);
    const reading = length > 0 ? this.#backend.read(data, offset) : undefined;
    if (reading instanceof Promise) await reading;
    return data;
  }

  async #status(request: Request): Promise<void> {
    const one = (request.flags & NBD_CMD_FLAG.REQ_ONE) !== 0;
    const { offset, length, cookieHigh, cookieLow } = request;
    let runs = this.#backend.status(offset, length, one ? 1 : maximumRuns);
    if (runs instanceof Promise) runs = await runs;
    const descriptors = runs.map((run) => ({
      length: run.length,
      flags: (run.hole ? NBD_STATE.HOLE : 0) | (run.zero ? NBD_STATE.ZERO : 0),
    }));
    while (this.#streaming !== undefined) await this.#streaming;
    const id = this.#terms.allocationContext ?? 0;
    this.#wire.send([encodeBlockStatusChunk(NBD_REPLY_FLAG.DONE, cookieHigh, cookieLow, id, descriptors)]);
  }

  async #sendError(request: Request, told: Refusal): Promise<void> {
    while (this.#streaming !== undefined) await this.#streaming;
    if (!this.#terms.structured) this.#sendSimple(request, told.error);
    else {
      const { cookieHigh, cookieLow } = request;
      const text = told.message.replaceAll('\0', '').slice(0, 1000);
      this.#wire.send([encodeErrorChunk(NBD_REPLY_FLAG.DONE, cookieHigh, cookieLow, told.error, text)]);
    }
  }

  #sendSimple(request: Request, error: number): void {
    const reply = Buffer.allocUnsafe(SIMPLE_REPLY_BYTES);
    encodeSimpleReply(reply, 0, error, request.cookieHigh, request.cookieLow);
    this.#wire.send([reply]);
  }

  #sendNone(request: Request): void {
    const chunk = Buffer.allocUnsafe(CHUNK_HEADER_BYTES);
    encodeNoneChunk(chunk, 0, request.cookieHigh, request.cookieLow);
    this.#wire.send([chunk]);
  }
}
