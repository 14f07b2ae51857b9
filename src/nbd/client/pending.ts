/**
 * An outstanding request. Slots and their header buffers are reused, so sending allocates only the promise. The cookie
 * consists of the slot's number and a count of its uses.
 */
import { AgentError } from '../../base/errors.ts';
import type { StatusDescriptor } from '../protocol/reply.ts';
import { REQUEST_BYTES } from '../protocol/request.ts';
import { protocolError } from '../protocol/wire.ts';
import { Coverage } from './coverage.ts';

/** The most error chunks of one reply. A server may send one for each unreadable range. */
const mostErrors = 64;

export class Pending {
  readonly index: number;
  readonly header = Buffer.allocUnsafeSlow(REQUEST_BYTES);
  /** Upper half of the cookie; a reply to an earlier use of the slot does not match. */
  generation = 0;
  busy = false;
  command = 0;
  offset = 0;
  length = 0;
  /** Start time, by the clock of `performance.now`. */
  since = 0;
  /** The buffer for the data of a read. */
  into: Buffer = nothing;
  readonly coverage = new Coverage();
  descriptors: readonly StatusDescriptor[] | undefined;
  /** The NBD_ERROR of the server, or 0. */
  error = 0;
  message = '';
  #errors = 0;
  resolve: () => void = noop;
  reject: (error: Error) => void = noop;

  constructor(index: number) {
    this.index = index;
  }

  begin(command: number, offset: number, length: number, into: Buffer): void {
    this.busy = true;
    this.command = command;
    this.offset = offset;
    this.length = length;
    this.since = performance.now();
    this.into = into;
    this.coverage.reset();
    this.descriptors = undefined;
    this.error = 0;
    this.message = '';
    this.#errors = 0;
  }

  end(): void {
    this.busy = false;
    this.generation = (this.generation + 1) >>> 0;
    this.into = nothing;
    this.resolve = noop;
    this.reject = noop;
  }

  /** Returns the part of `into` for a chunk. Throws NBD_PROTOCOL if the chunk is outside the read or came before. */
  place(name: string, offset: number, length: number): Buffer {
    const start = offset - this.offset;
    if (start < 0 || start + length > this.length)
      throw protocolError(
        `${name} sent ${length} bytes at ${offset} for a read of ${this.length} bytes at ${this.offset}`,
      );
    if (!this.coverage.claim(start, length))
      throw protocolError(
        `${name} sent the ${length} bytes at ${offset} twice in one reply, or in too many pieces`,
      );
    return this.into.subarray(start, start + length);
  }

  /** Sets the error; the first one of a reply counts. Throws NBD_PROTOCOL for more than `mostErrors` of them. */
  setError(name: string, error: number, message: string): void {
    if (++this.#errors > mostErrors)
      throw protocolError(`${name} sent more than ${mostErrors} errors in one reply`);
    if (this.error !== 0) return;
    this.error = error;
    this.message = message;
  }
}

/** Returns the error of requests that fail because their connection is lost. */
export function lost(name: string, what: string, cause?: unknown): AgentError {
  return new AgentError('NBD_CONNECTION_LOST', `${name} ${what}`, {
    hint: 'check the server and the network',
    ...(cause === undefined ? {} : { cause }),
  });
}

function noop(): void {
  // A promise's functions replace this one while the slot is busy.
}

const nothing = Buffer.alloc(0);
