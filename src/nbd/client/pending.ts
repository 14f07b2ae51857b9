/**
 * A request under way: a slot that is used again and again, with its header buffer, so that sending allocates
 * nothing but the promise. The slot's number and how often it was used make the cookie.
 */
import { AgentError } from '../../base/errors.ts';
import type { StatusDescriptor } from '../protocol/reply.ts';
import { REQUEST_BYTES } from '../protocol/request.ts';
import { protocolError } from '../protocol/wire.ts';
import { Coverage } from './coverage.ts';

/** Error chunks of one reply: a server may send one for each place that it could not read. */
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
  /** When it began, by the clock of `performance.now`. */
  since = 0;
  /** Where the data of a read goes. */
  into: Buffer = nothing;
  readonly coverage = new Coverage();
  descriptors: readonly StatusDescriptor[] | undefined;
  /** An NBD_ERROR once the server told one. */
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

  /** The part of `into` for a chunk of a read. Throws NBD_PROTOCOL where it lies outside or was filled before. */
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

  /** The first error of a reply counts. Throws NBD_PROTOCOL if there are more than a server can mean. */
  setError(name: string, error: number, message: string): void {
    if (++this.#errors > mostErrors)
      throw protocolError(`${name} sent more than ${mostErrors} errors in one reply`);
    if (this.error !== 0) return;
    this.error = error;
    this.message = message;
  }
}

/** For requests that are given up with their connection. */
export function lost(name: string, what: string, cause?: unknown): AgentError {
  return new AgentError('NBD_CONNECTION_LOST', `${name} ${what}`, {
    hint: 'check the server and the network',
    ...(cause === undefined ? {} : { cause }),
  });
}

function noop(): void {
  // Replaced while the slot is busy.
}

const nothing = Buffer.alloc(0);
