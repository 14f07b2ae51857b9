/** Bodies of S3 requests and answers. */
import { createHash } from 'node:crypto';
import { Readable } from 'node:stream';
import { setImmediate } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { MiB } from '../../base/bytes.ts';

/** Hashing yields to other work of the thread after this many bytes (about 2 ms). */
const TURN = MiB;
/** Bytes per write to the socket, whose time-out uses it as progress. */
const SLICE = MiB / 4;

/** Returns the MD5 of the parts in base64, for `Content-MD5`. */
export async function contentMd5(parts: readonly Uint8Array[]): Promise<string> {
  const hash = createHash('md5');
  let turn = 0;
  for (const slice of slices(parts, TURN)) {
    hash.update(slice);
    turn += slice.length;
    if (turn < TURN) continue;
    turn = 0;
    await setImmediate();
  }
  return hash.digest('base64');
}

/**
 * Returns a body that is sent without collecting it in memory. The SDK signs no checksum of a stream, so Content-MD5
 * is used.
 */
export function bodyOf(parts: readonly Uint8Array[]): Readable | Buffer {
  return parts.every((part) => part.length === 0)
    ? Buffer.alloc(0)
    : Readable.from(slices(parts, SLICE), { objectMode: false });
}

/** Returns the bytes `[start, end)` of the parts, without copying. */
export function cut(parts: readonly Uint8Array[], start: number, end: number): Uint8Array[] {
  const cuts: Uint8Array[] = [];
  let at = 0;
  for (const part of parts) {
    const from = Math.max(start - at, 0);
    const to = Math.min(end - at, part.length);
    if (from < to) cuts.push(part.subarray(from, to));
    at += part.length;
  }
  return cuts;
}

/** Reads an answer's body of at most `most` bytes. Throws VAULT_UNREACHABLE if it ends early. */
export async function readBody(body: unknown, length: number | undefined, most: number): Promise<Buffer> {
  if (!(body instanceof Readable)) throw new AgentError('VAULT_STORE_ERROR', 'the answer has no body');
  if (length !== undefined && length > most) {
    body.destroy();
    throw new AgentError(
      'VAULT_STORE_ERROR',
      `the server answered ${length} bytes, but at most ${most} were requested`,
      { hint: 'check that the endpoint is an S3 server' },
    );
  }
  if (length === undefined) return Buffer.concat((await body.toArray()) as Buffer[]);
  const whole = Buffer.allocUnsafeSlow(length);
  let done = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    if (done + chunk.length > length) break;
    done += chunk.copy(whole, done);
  }
  if (done !== length)
    throw new AgentError('VAULT_UNREACHABLE', `the answer ended early: ${done} of ${length} bytes came`);
  return whole;
}

function* slices(parts: readonly Uint8Array[], size: number): Generator<Uint8Array> {
  for (const part of parts) for (let at = 0; at < part.length; at += size) yield part.subarray(at, at + size);
}
