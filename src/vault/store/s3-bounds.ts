/**
 * What an S3 server may cost at most, whatever it answers: bytes of a body by what it can hold, time by progress, lists
 * by their order. A server that is hostile or broken gets an error out of us and no more.
 */
import { Readable, Transform, type TransformCallback, pipeline } from 'node:stream';
import { NodeHttpHandler, type NodeHttpHandlerOptions } from '@smithy/node-http-handler';
import { MiB, formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';

/** The largest object that this program writes is a pack of 64 MiB with its directory. */
export const largestObject = 80 * MiB;
/** A list of 1000 keys of 1024 bytes each, escaped, with their other fields. */
const largestText = 8 * MiB;
/** Keys of one list: a vault of hundreds of TiB. */
const mostKeys = 10_000_000;
/** Pages in a row that hold no key. */
const mostEmptyPages = 100;
/** A body has to bring so many bytes in so many idle times, or end. */
const progressBytes = 64 * 1024;
const progressFactor = 2;
/** A request has to be answered within this many times the idle time, also if bytes of its header come in now and then. */
const answerFactor = 10;

type Handled = Awaited<ReturnType<NodeHttpHandler['handle']>>;

/** The SDK's handler, with limits to what comes back. */
export class BoundedHandler extends NodeHttpHandler {
  readonly #idleMs: number;

  /** `idleMs`: longest time without progress. */
  constructor(options: NodeHttpHandlerOptions, idleMs: number) {
    super(options);
    this.#idleMs = idleMs;
  }

  override async handle(
    request: Parameters<NodeHttpHandler['handle']>[0],
    options: Parameters<NodeHttpHandler['handle']>[1] = {},
  ): Promise<Handled> {
    const isObject = request.method === 'GET' && request.query['x-id'] === 'GetObject';
    const handled = await this.#answered(super.handle(request, options), request.body instanceof Readable);
    const { response } = handled;
    const most = isObject && response.statusCode < 300 ? largestObject : largestText;
    const length = Number(response.headers['content-length'] ?? 0);
    const body: unknown = response.body;
    if (!(body instanceof Readable)) return handled;
    if (request.method !== 'HEAD' && length > most) {
      body.destroy();
      throw tooLong(most);
    }
    const limited = new Limited(most, this.#idleMs);
    response.body = pipeline(body, limited, () => undefined);
    return handled;
  }

  /** An upload takes as long as it takes: the socket's own time-out sees it move. */
  async #answered(handling: Promise<Handled>, uploads: boolean): Promise<Handled> {
    if (uploads) return handling;
    let isLate = false;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_resolve, reject) => {
      timer = setTimeout(() => {
        isLate = true;
        reject(stopped());
      }, answerFactor * this.#idleMs);
    });
    // An answer that comes too late is of no use to anybody.
    handling.then(
      ({ response }) => {
        if (isLate && response.body instanceof Readable) response.body.destroy();
      },
      () => undefined,
    );
    try {
      return await Promise.race([handling, late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Passes a body on, up to a number of bytes, as long as it makes progress. */
class Limited extends Transform {
  readonly #most: number;
  readonly #timer: NodeJS.Timeout;
  #bytes = 0;
  #fresh = 0;

  constructor(most: number, idleMs: number) {
    super();
    this.#most = most;
    this.#timer = setInterval(() => {
      // What waits for its reader is not the server's fault.
      if (this.#fresh < progressBytes && this.readableLength === 0) this.destroy(stopped());
      this.#fresh = 0;
    }, progressFactor * idleMs);
    this.#timer.unref();
  }

  override _transform(chunk: Buffer, _encoding: BufferEncoding, done: TransformCallback): void {
    this.#bytes += chunk.length;
    this.#fresh += chunk.length;
    if (this.#bytes > this.#most) done(tooLong(this.#most));
    else done(undefined, chunk);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    clearInterval(this.#timer);
    done(error);
  }

  override _final(done: (error?: Error | null) => void): void {
    clearInterval(this.#timer);
    done();
  }
}

function tooLong(most: number): AgentError {
  return new AgentError('VAULT_STORE_ERROR', `the answer of the server is longer than ${formatBytes(most)}`, {
    hint: 'check that the endpoint is an S3 server, and that nobody else writes to the place of the vault',
  });
}

function stopped(): AgentError {
  return new AgentError('VAULT_UNREACHABLE', 'the server stopped answering', { hint: 'see whether it runs' });
}

/** A list that is asked for page by page, and has to get on with each. */
export class ListProgress {
  readonly #store: string;
  readonly #tokens = new Set<string>();
  #keys = 0;
  #emptyPages = 0;
  #last: Buffer | undefined;

  constructor(store: string) {
    this.#store = store;
  }

  /** To be called with each page: its keys, and the token of the next one. Throws VAULT_STORE_ERROR. */
  page(keys: readonly string[], token: string | undefined): void {
    this.#keys += keys.length;
    if (this.#keys > mostKeys) throw this.#wrong(`has more than ${mostKeys} keys`);
    this.#emptyPages = keys.length === 0 ? this.#emptyPages + 1 : 0;
    if (this.#emptyPages > mostEmptyPages)
      throw this.#wrong(`has ${this.#emptyPages} pages in a row without a key`);
    const last = keys.at(-1);
    if (last !== undefined) {
      const bytes = Buffer.from(last);
      if (this.#last !== undefined && bytes.compare(this.#last) <= 0)
        throw this.#wrong('gives keys again that it gave before');
      this.#last = bytes;
    }
    if (token === undefined) return;
    // Pages with keys make progress by these.
    if (keys.length > 0) this.#tokens.clear();
    if (this.#tokens.has(token)) throw this.#wrong('goes round in a circle');
    this.#tokens.add(token);
  }

  #wrong(what: string): AgentError {
    return new AgentError('VAULT_STORE_ERROR', `${this.#store}: a list ${what}`, {
      hint: 'check that the endpoint is an S3 server, and that nobody else writes to the place of the vault',
    });
  }
}
