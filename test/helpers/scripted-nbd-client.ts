/**
 * For tests: a client that sends prepared bytes over a stream in memory and keeps the received bytes. Also a backend in
 * memory that can be slow, can fail, and records its calls.
 */
import { Duplex } from 'node:stream';
import { silentLog } from '../../src/base/log.ts';
import {
  decodeOptionReplyHeader,
  encodeClientFlags,
  encodeOption,
  OPTION_REPLY_HEADER_BYTES,
} from '../../src/nbd/protocol/handshake.ts';
import { encodeInfoRequest, encodeMetaContextRequest } from '../../src/nbd/protocol/options.ts';
import { errorName, NBD_OPT, NBD_REP } from '../../src/nbd/protocol/constants.ts';
import { ReplyDecoder } from '../../src/nbd/protocol/reply-decoder.ts';
import { encodeRequest, REQUEST_BYTES } from '../../src/nbd/protocol/request.ts';
import {
  type ExportBackend,
  ExportError,
  type ExportProvider,
  type StatusExtent,
} from '../../src/nbd/server/backend.ts';
import {
  serveConnection,
  type ServedConnection,
  type ServerOptions,
} from '../../src/nbd/server/connection.ts';
import { Wire } from '../../src/nbd/server/wire.ts';

export class MemoryBackend implements ExportBackend {
  readonly size: number;
  readonly multiConnection = true;
  readonly fastZero = true;
  readOnly = false;
  readonly bytes: Buffer;
  /** The calls, such as `write 0+512`. */
  readonly calls: string[] = [];
  /** Runs before each call. Throws the error with which the call fails, or returns a promise to wait for. */
  before: (call: string) => void | Promise<void> = () => undefined;

  constructor(size: number) {
    this.size = size;
    this.bytes = Buffer.alloc(size);
  }

  read(target: Uint8Array, offset: number): void | Promise<void> {
    return this.#do(`read ${offset}+${target.length}`, () => {
      this.bytes.copy(target, 0, offset, offset + target.length);
    });
  }

  write(data: Uint8Array, offset: number): void | Promise<void> {
    return this.#do(`write ${offset}+${data.length}`, () => this.bytes.set(data, offset));
  }

  zero(offset: number, length: number, options: { hole: boolean; fast: boolean }): void | Promise<void> {
    const how = `${options.hole ? ' hole' : ''}${options.fast ? ' fast' : ''}`;
    return this.#do(`zero ${offset}+${length}${how}`, () => this.bytes.fill(0, offset, offset + length));
  }

  trim(offset: number, length: number): void | Promise<void> {
    return this.#do(`trim ${offset}+${length}`, () => this.bytes.fill(0, offset, offset + length));
  }

  flush(): void | Promise<void> {
    return this.#do('flush', () => undefined);
  }

  /** Reports runs of zeros, in units of 512 bytes, as holes. */
  run(offset: number, length: number): StatusExtent {
    const isZero = (at: number): boolean =>
      this.bytes.subarray(at, at + 512 - (at % 512)).every((b) => b === 0);
    const zero = isZero(offset);
    let end = offset + 512 - (offset % 512);
    while (end < offset + length && isZero(end) === zero) end += 512;
    return { length: Math.min(end - offset, length), hole: zero, zero };
  }

  status(offset: number, length: number, limit: number): StatusExtent[] {
    const runs: StatusExtent[] = [];
    for (let at = offset; at < offset + length && runs.length < limit; at += runs.at(-1)?.length ?? length)
      runs.push(this.run(at, offset + length - at));
    return runs;
  }

  close(): void {
    this.calls.push('close');
  }

  #do(call: string, work: () => void): void | Promise<void> {
    this.calls.push(call);
    const waiting = this.before(call);
    if (waiting !== undefined) return waiting.then(work);
    work();
    return undefined;
  }
}

/** Provides one export named `disk`, which is also the default export. */
export function memoryExports(backend: ExportBackend): ExportProvider {
  const check = (name: string): void => {
    if (name === 'refused') throw new ExportError('policy', 'not for you');
    if (name !== 'disk' && name !== '') throw new ExportError('unknown', `there is no "${name}"`);
  };
  return {
    list: () => [{ name: 'disk', description: 'in memory' }],
    describe: (name) => {
      check(name);
      const { size, readOnly, multiConnection, fastZero } = backend;
      return { name: 'disk', size, readOnly, multiConnection, fastZero, description: 'in memory' };
    },
    open: (name) => {
      check(name);
      return backend;
    },
  };
}

/** One end of a connection in memory. Like the kernel, it copies written data and reports the end of the other side. */
class Side extends Duplex {
  other: Side | undefined;
  #taken: (() => void) | undefined;

  override _write(chunk: Uint8Array, _encoding: string, callback: () => void): void {
    if (this.other === undefined || this.other.destroyed) return;
    if (this.other.push(Buffer.from(chunk))) callback();
    else this.other.#taken = callback;
  }

  override _read(): void {
    const taken = this.#taken;
    this.#taken = undefined;
    taken?.();
  }

  override _final(callback: () => void): void {
    this.other?.push(null);
    callback();
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.other?.destroy();
    callback(error);
  }
}

export interface ScriptedClient {
  readonly stream: Duplex;
  readonly connection: ServedConnection;
  /** Returns all bytes received so far. */
  received(): Buffer;
  /** Waits for this number of bytes and removes them. Rejects if the server closes first. */
  take(bytes: number): Promise<Buffer>;
  /** Returns the received bytes; waits for the first one. */
  takeSome(): Promise<Buffer>;
  send(...parts: Uint8Array[]): void;
}

export function connectTo(exports: ExportProvider, options: Partial<ServerOptions> = {}): ScriptedClient {
  const ours = new Side();
  const theirs = new Side();
  ours.other = theirs;
  theirs.other = ours;
  const connection = serveConnection(new Wire(theirs), { exports, log: silentLog(), ...options });
  let chunks: Buffer[] = [];
  let ended = false;
  let check = (): void => undefined;
  const got = (): Buffer => {
    if (chunks.length !== 1) chunks = [Buffer.concat(chunks)];
    return chunks[0]!;
  };
  ours.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    check();
  });
  const end = (): void => {
    ended = true;
    check();
  };
  ours.on('end', end).on('close', end).on('error', end);
  const takeWhen = (enough: (bytes: number) => number): Promise<Buffer> =>
    new Promise((resolve, reject) => {
      check = () => {
        const all = got();
        const bytes = enough(all.length);
        if (bytes > 0 && bytes <= all.length) {
          check = () => undefined;
          chunks = [all.subarray(bytes)];
          resolve(all.subarray(0, bytes));
        } else if (ended) reject(new Error(`the server closed after ${all.length} bytes`));
      };
      check();
    });
  return {
    stream: ours,
    connection,
    received: got,
    take: (bytes) => takeWhen(() => bytes),
    takeSome: () => takeWhen((there) => there),
    send: (...parts) => {
      for (const part of parts) ours.write(part);
    },
  };
}

/** The client flags, which accept fixed newstyle without padding. */
export const clientFlags = encodeClientFlags(3);

export function go(name: string, requests: number[] = []): Buffer {
  return encodeOption(NBD_OPT.GO, encodeInfoRequest({ name, requests }));
}

export function setAllocation(name: string): Buffer {
  return encodeOption(
    NBD_OPT.SET_META_CONTEXT,
    encodeMetaContextRequest({ name, queries: ['base:allocation'] }),
  );
}

export const structuredReply = encodeOption(NBD_OPT.STRUCTURED_REPLY);

/** Returns a request. A number as `payload` is only a length, without data. */
export function ask(
  type: number,
  offset: number,
  payload: number | Uint8Array,
  options: { flags?: number; cookie?: number } = {},
): Buffer {
  const header = Buffer.alloc(REQUEST_BYTES);
  const length = typeof payload === 'number' ? payload : payload.length;
  encodeRequest(header, 0, options.flags ?? 0, type, 0, options.cookie ?? 1, offset, length);
  return typeof payload === 'number' ? header : Buffer.concat([header, payload]);
}

export interface OptionAnswer {
  readonly type: number;
  readonly data: Buffer;
}

/** Returns option replies up to the last one, an acknowledgement or an error. */
export async function answers(client: ScriptedClient): Promise<OptionAnswer[]> {
  for (const list: OptionAnswer[] = []; ;) {
    const { type, length } = decodeOptionReplyHeader(await client.take(OPTION_REPLY_HEADER_BYTES));
    list.push({ type, data: length === 0 ? Buffer.alloc(0) : await client.take(length) });
    if (type === NBD_REP.ACK || type >= 2 ** 31) return list;
  }
}

/** Returns a client that has read the greeting and sent its flags. */
export async function greeted(
  exports: ExportProvider,
  options: Partial<ServerOptions> = {},
): Promise<ScriptedClient> {
  const client = connectTo(exports, options);
  await client.take(18);
  client.send(clientFlags);
  return client;
}

export interface Transfer extends ScriptedClient {
  /** Replies in order, as text: `1 ok`, `1 data 0+512`, `1 hole 512+512`, `1 status 512:3`, `1 error EINVAL`. */
  readonly replies: string[];
  /** The data of each read so far, by its cookie. */
  readonly data: Map<number, Buffer>;
  /** Resolves with the replies when this number of requests is answered. */
  answered(requests: number): Promise<string[]>;
}

/** Returns a client in the transmission phase. Before a read, put a buffer for its cookie into `data`. */
export async function entered(
  exports: ExportProvider,
  terms: { structured: boolean; allocation?: boolean },
  options: Partial<ServerOptions> = {},
): Promise<Transfer> {
  const client = await greeted(exports, options);
  if (terms.structured) {
    client.send(structuredReply);
    await answers(client);
  }
  if (terms.allocation === true) {
    client.send(setAllocation('disk'));
    await answers(client);
  }
  client.send(go('disk'));
  await answers(client);

  const replies: string[] = [];
  const data = new Map<number, Buffer>();
  let requests = 0;
  const place = (cookie: number, at: number, length: number): Buffer =>
    (data.get(cookie) ?? Buffer.alloc(at + length)).subarray(at, at + length);
  const decoder = new ReplyDecoder(
    {
      simple: (_high, cookie, error) => {
        replies.push(`${cookie} ${error === 0 ? 'ok' : `error ${errorName(error)}`}`);
        return error === 0 ? data.get(cookie) : undefined;
      },
      data: (_high, cookie, offset, length) => {
        replies.push(`${cookie} data ${offset}+${length}`);
        return place(cookie, offset, length);
      },
      hole: (_high, cookie, offset, length) => {
        replies.push(`${cookie} hole ${offset}+${length}`);
        place(cookie, offset, length).fill(0);
      },
      status: (_high, cookie, _id, runs) =>
        replies.push(`${cookie} status ${runs.map(({ length, flags }) => `${length}:${flags}`).join(' ')}`),
      error: (_high, cookie, error, _message, offset) =>
        replies.push(`${cookie} error ${errorName(error)}${offset === undefined ? '' : ` at ${offset}`}`),
      done: () => requests++,
    },
    terms.structured,
  );
  return {
    ...client,
    replies,
    data,
    answered: async (wanted) => {
      while (requests < wanted) decoder.push(await client.takeSome());
      return replies;
    },
  };
}
