/**
 * The transmission phase of one connection. Many requests can be outstanding; replies may arrive in any order and are
 * matched by cookie. A header and its payload go out in one write. Any protocol violation of the server ends the connection
 * and fails all outstanding requests. No request waits for ever: the connection fails without progress. Progress is an
 * answered request or 16 KiB of received data, not a single byte.
 */
import type { Log } from '../../base/log.ts';
import { AgentError, errnoCode, toAgentError } from '../../base/errors.ts';
import { NBD_CMD, NBD_ERROR, commandName } from '../protocol/constants.ts';
import { ReplyDecoder, type ReplyHandler } from '../protocol/reply-decoder.ts';
import type { StatusDescriptor } from '../protocol/reply.ts';
import { REQUEST_BYTES, encodeRequest } from '../protocol/request.ts';
import { protocolError } from '../protocol/wire.ts';
import { Pending, lost } from './pending.ts';
import { requestError } from './refusals.ts';
import { SilenceWatch } from './silence.ts';
import type { Transport } from './transport.ts';

export interface ChannelOptions {
  /** Name of the server in messages. */
  readonly name: string;
  readonly structured: boolean;
  /** ID of base:allocation, or undefined. */
  readonly allocationContext: number | undefined;
  /** Longest time without progress while requests are outstanding, milliseconds. */
  readonly timeoutMs: number;
  /** The same while a flush, zeroes or a trim is outstanding: these may keep a server busy for long. */
  readonly slowTimeoutMs: number;
  /** Longest time for a single request, also with progress, milliseconds. */
  readonly requestTimeoutMs: number;
  readonly log: Log | undefined;
}

/** The number of received bytes that counts as progress. */
const progressBytes = 16 * 1024;

export class Channel {
  /** Number of outstanding requests. */
  outstanding = 0;
  /** The error that ended the channel; undefined while it works. */
  failure: AgentError | undefined;
  readonly #stream: Transport['stream'];
  readonly #options: ChannelOptions;
  readonly #slots: Pending[] = [];
  readonly #free: Pending[] = [];
  #slow = 0;
  #received = 0;
  readonly #silence: SilenceWatch;
  #idle: (() => void)[] = [];

  constructor(transport: Transport, takeRest: () => Buffer, options: ChannelOptions) {
    this.#stream = transport.stream;
    this.#options = options;
    const { timeoutMs, slowTimeoutMs } = options;
    this.#silence = new SilenceWatch({
      intervalMs: timeoutMs,
      limitMs: () => (this.outstanding === 0 ? 0 : this.#slow > 0 ? slowTimeoutMs : timeoutMs),
      latest: () => this.#oldest() + options.requestTimeoutMs,
      unsent: () => this.#stream.writableLength,
      onSilence: (ms) =>
        this.fail(
          this.#lost(
            ms >= timeoutMs
              ? `made no progress for ${ms} ms`
              : `left a request unanswered for ${options.requestTimeoutMs} ms`,
          ),
        ),
    });
    const decoder = new ReplyDecoder(this.#handler(), options.structured);
    const receive = (chunk: Uint8Array): void => {
      if (this.failure !== undefined) return;
      this.#received += chunk.length;
      if (this.#received >= progressBytes) this.#progress();
      try {
        decoder.push(chunk);
      } catch (error) {
        this.fail(toAgentError(error));
      }
    };
    this.#stream.on('error', (error) =>
      this.fail(this.#lost(`broke off (${errnoCode(error) ?? error.message})`, error)),
    );
    this.#stream.on('end', () => this.fail(this.#lost('closed the connection')));
    this.#stream.on('close', () => this.fail(this.#lost('closed the connection')));
    const rest = takeRest();
    if (rest.length > 0) receive(rest);
    transport.receive(receive);
    if (this.#stream.destroyed) this.fail(this.#lost('closed the connection'));
  }

  /**
   * Sends a request. Resolves when the server has completed it; for a read, `into` is then filled. The payload must not
   * change before that. Rejects with the server's error (see `requestError`), or with `failure`.
   */
  submit(
    command: number,
    flags: number,
    offset: number,
    length: number,
    payload?: Uint8Array,
    into: Buffer = nothing,
  ): Promise<void> {
    return this.#send(command, flags, offset, length, payload, into, undefined);
  }

  /** Sends NBD_CMD_BLOCK_STATUS for base:allocation. Returns at least one descriptor, from `offset` on. */
  async blockStatus(offset: number, length: number): Promise<readonly StatusDescriptor[]> {
    let descriptors: readonly StatusDescriptor[] = [];
    await this.#send(NBD_CMD.BLOCK_STATUS, 0, offset, length, undefined, nothing, (found) => {
      descriptors = found;
    });
    return descriptors;
  }

  /** Resolves when no request is outstanding, or the channel has failed. */
  async settled(): Promise<void> {
    while (this.outstanding > 0 && this.failure === undefined)
      await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Sends NBD_CMD_DISC and ends the stream. Waits for its close, at most two seconds. */
  async disconnect(): Promise<void> {
    if (this.failure !== undefined) return;
    const closed = new Promise<void>((resolve) => {
      if (this.#stream.closed) resolve();
      else this.#stream.once('close', () => resolve());
    });
    this.#sendDisconnect();
    this.#silence.stop();
    this.failure = new AgentError('CANCELLED', `We closed the connection to ${this.#options.name}`);
    this.#stream.end();
    const timer = setTimeout(() => this.#stream.destroy(), 2000);
    await closed;
    clearTimeout(timer);
  }

  /** Ends the connection at once. All outstanding requests reject with `error`. The first failure counts. */
  fail(error: AgentError): void {
    if (this.failure !== undefined) return;
    this.failure = error;
    this.#silence.stop();
    this.#options.log?.debug({ code: error.code, outstanding: this.outstanding }, error.message);
    this.#stream.destroy();
    for (const slot of this.#slots) {
      if (!slot.busy) continue;
      const { reject } = slot;
      slot.end();
      reject(error);
    }
    this.outstanding = 0;
    this.#wakeIdle();
  }

  #send(
    command: number,
    flags: number,
    offset: number,
    length: number,
    payload: Uint8Array | undefined,
    into: Buffer,
    withStatus: ((descriptors: readonly StatusDescriptor[]) => void) | undefined,
  ): Promise<void> {
    if (this.failure !== undefined) return Promise.reject(this.failure);
    const slot = this.#takeSlot();
    slot.begin(command, offset, length, into);
    this.outstanding++;
    if (isSlow(command)) this.#slow++;
    if (this.outstanding === 1) this.#progress();
    this.#silence.start();
    encodeRequest(slot.header, 0, flags, command, slot.generation, slot.index, offset, length);
    const done = new Promise<void>((resolve, reject) => {
      slot.resolve =
        withStatus === undefined
          ? resolve
          : () => {
              withStatus(slot.descriptors!);
              resolve();
            };
      slot.reject = reject;
    });
    if (payload === undefined) {
      this.#stream.write(slot.header);
    } else {
      this.#stream.cork();
      this.#stream.write(slot.header);
      this.#stream.write(payload);
      this.#stream.uncork();
    }
    return done;
  }

  #progress(): void {
    this.#received = 0;
    this.#silence.heard();
  }

  /** The time at which the oldest outstanding request began. */
  #oldest(): number {
    return this.#slots.reduce(
      (oldest, { busy, since }) => (busy ? Math.min(oldest, since) : oldest),
      Infinity,
    );
  }

  #sendDisconnect(): void {
    const header = Buffer.alloc(REQUEST_BYTES);
    encodeRequest(header, 0, 0, NBD_CMD.DISC, 0, 0xffffffff, 0, 0);
    this.#stream.write(header);
  }

  #takeSlot(): Pending {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const slot = new Pending(this.#slots.length);
    this.#slots.push(slot);
    return slot;
  }

  #handler(): ReplyHandler {
    const { name, structured } = this.#options;
    return {
      simple: (high, low, error) => {
        const slot = this.#find(high, low);
        if (error !== 0) {
          slot.setError(name, error, '');
          return undefined;
        }
        if (slot.command !== NBD_CMD.READ) return undefined;
        if (structured)
          throw protocolError(
            `${name} sent a simple reply to NBD_CMD_READ after agreeing to structured replies`,
          );
        return slot.place(name, slot.offset, slot.length);
      },
      data: (high, low, offset, length) => this.#reading(high, low).place(name, offset, length),
      hole: (high, low, offset, length) => {
        this.#reading(high, low).place(name, offset, length).fill(0);
      },
      status: (high, low, contextId, descriptors) => {
        const slot = this.#find(high, low);
        if (slot.command !== NBD_CMD.BLOCK_STATUS || contextId !== this.#options.allocationContext)
          throw protocolError(
            `${name} sent a block status of context ${contextId} in reply to ${commandName(slot.command)}`,
          );
        if (slot.descriptors !== undefined) throw protocolError(`${name} sent a block status twice`);
        slot.descriptors = descriptors;
      },
      error: (high, low, error, message) => this.#find(high, low).setError(name, error, message),
      done: (high, low) => this.#done(this.#find(high, low)),
    };
  }

  #find(high: number, low: number): Pending {
    const slot = this.#slots[low];
    if (slot === undefined || !slot.busy || slot.generation !== high)
      throw protocolError(
        `${this.#options.name} replied to the cookie ${high}:${low}, but no outstanding request has it`,
      );
    return slot;
  }

  #reading(high: number, low: number): Pending {
    const slot = this.#find(high, low);
    if (slot.command !== NBD_CMD.READ)
      throw protocolError(`${this.#options.name} sent data in reply to ${commandName(slot.command)}`);
    return slot;
  }

  #done(slot: Pending): void {
    const { name } = this.#options;
    const { command, offset, length, error, message, resolve, reject } = slot;
    if (error === 0 && command === NBD_CMD.READ && slot.coverage.covered !== length)
      throw protocolError(`${name} sent ${slot.coverage.covered} of ${length} bytes, but reported success`);
    if (error === 0 && command === NBD_CMD.BLOCK_STATUS && slot.descriptors === undefined)
      throw protocolError(`${name} answered NBD_CMD_BLOCK_STATUS without a block status`);
    if (error === 0) resolve();
    slot.end();
    this.#free.push(slot);
    this.outstanding--;
    if (isSlow(command)) this.#slow--;
    this.#progress();
    if (error !== 0) {
      const failure = requestError(name, command, offset, length, error, message);
      reject(failure);
      // The server shuts down: disconnect cleanly. The caller may send the other requests again.
      if (error === NBD_ERROR.ESHUTDOWN) {
        this.#sendDisconnect();
        this.fail(failure);
      }
    }
    if (this.outstanding === 0) this.#wakeIdle();
  }

  #wakeIdle(): void {
    const waiting = this.#idle;
    if (waiting.length === 0) return;
    this.#idle = [];
    for (const wake of waiting) wake();
  }

  #lost(what: string, cause?: unknown): AgentError {
    return lost(this.#options.name, `${what} with ${this.outstanding} outstanding requests`, cause);
  }
}

function isSlow(command: number): boolean {
  return command === NBD_CMD.FLUSH || command === NBD_CMD.WRITE_ZEROES || command === NBD_CMD.TRIM;
}

const nothing = Buffer.alloc(0);
