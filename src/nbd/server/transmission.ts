/**
 * The transmission phase of one connection: requests in, backend called, replies out, in any order. What is
 * under way is bounded in bytes and in number; past that no further request is taken from the wire, so that
 * the memory of a client stays bounded however deep it pipelines and however slowly it reads.
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

/** Bytes of payload under way or waiting in the socket before a client has to wait; one request may exceed it. */
const maximumBytesUnderWay = 4 * MiB;
/** Requests under way before a client has to wait. */
const maximumRequestsUnderWay = 128;
/** Structured reads go out in chunks of at most this many bytes. */
const chunkBytes = 1 * MiB;
/** Runs in one block status reply; more are asked for by the client. */
const maximumRuns = 8192;

type Memory = NonNullable<ReturnType<BudgetShare['take']>>;

export interface TransmissionEvents {
  /** A request failed in the backend (not: was refused as malformed). */
  failed(command: number, refusal: Refusal): void;
}

export class Transmission implements Receiver, RequestHandler, BudgetHolder {
  readonly #wire: Wire;
  readonly #backend: ExportBackend;
  readonly #terms: TransmissionTerms;
  readonly #pool: BufferPool;
  readonly #events: TransmissionEvents;
  readonly #share: BudgetShare;
  /** Memory of the request whose payload arrives now, or that is handed out next. */
  #arriving: { give(): void } | undefined;
  #received = 0;
  /** A reply goes out piece by piece: no other may come in between until this resolves. */
  #streaming: Promise<undefined> | undefined;
  readonly #decoder = new RequestDecoder(this);
  #requests = 0;
  #bytes = 0;
  #held = false;
  #stopping = false;
  /** Writes that were confirmed, and how many of them a flush has covered. */
  #written = 0;
  #flushed = 0;
  #idle: (() => void) | undefined;
  #finish!: () => void;
  /** Resolves when the client has said goodbye, or has gone. */
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
   * Takes the wire over. `rest` are bytes that the handshake has read too many. Never throws: garbage among them
   * ends the connection as any other garbage does, while the requests before it are still under way.
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

  /** Takes the memory that the request's payload needs, where it is to be read or written at all. */
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
    // Reads go out piece by piece.
    return type === NBD_CMD.READ && length > 0 ? sizeClass(Math.min(length, chunkBytes)) : 0;
  }

  /** Takes no further request, and resolves when those under way have ended. No request runs from then on. */
  async drain(): Promise<void> {
    this.#stopping = true;
    this.#hold();
    this.#share.leave();
    this.#arriving?.give();
    if (this.#requests > 0) await new Promise<void>((resolve) => (this.#idle = resolve));
  }

  /** True where writes were confirmed and no flush came since. */
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
    // Runs to its end at once where the backend answers at once.
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

  /** Goes on after a hold, once half of what was allowed is free again. */
  #relax(): void {
    // Nobody would get the answers of what still waits.
    if (!this.#held || this.#stopping || this.#wire.broken) return;
    if (this.#requests > maximumRequestsUnderWay / 2 || this.#load() > maximumBytesUnderWay / 2) return;
    this.#held = false;
    try {
      this.#decoder.release();
    } catch (error) {
      this.#wire.destroy(error instanceof Error ? error : undefined);
      return;
    }
    // The waiting bytes may have filled it up again.
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

  /** Never `await`s what was answered at once, so that cheap requests cost no turn of the event loop. */
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
   * One reply with its data. More than a piece goes out piece by piece, each read when the client has taken the one
   * before, so that its memory stays small; no other reply can come in between. An error past the first piece ends
   * the connection: the reply has begun by then (doc/proto.md, "Simple reply message").
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

  /** Holes go out as such; an error in the middle names its place. */
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
          // One piece at a time waits for the client, however large the read is.
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
