/**
 * Limits the cost of any answer of an S3 server: the bytes of a body by its expected content, the time by progress,
 * and listings by their order. A hostile or broken server can cause an error, but nothing else.
 */
import { Readable, Transform, type TransformCallback, pipeline } from 'node:stream';
import { NodeHttpHandler, type NodeHttpHandlerOptions } from '@smithy/node-http-handler';
import { MiB, formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';

/** The largest object of this program is a pack of 64 MiB with its directory. */
export const largestObject = 80 * MiB;
/** A listing of 1000 keys of 1024 bytes each, escaped, with the other fields. */
const largestText = 8 * MiB;
/** Maximum keys of one listing: a vault of hundreds of TiB. */
const mostKeys = 10_000_000;
/** Maximum pages in a row without a key. */
const mostEmptyPages = 100;
/** A body must bring this many bytes within this many idle times, or end. */
const progressBytes = 64 * 1024;
const progressFactor = 2;
/** A request must be answered within this many idle times, even if bytes of its header arrive now and then. */
const answerFactor = 10;

type Handled = Awaited<ReturnType<NodeHttpHandler['handle']>>;

/** The SDK's handler, with limits for answers. */
export class BoundedHandler extends NodeHttpHandler {
  readonly #idleMs: number;

  /** `idleMs` is the maximum time without progress. */
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

  /** An upload has no total limit: the socket's own time-out sees its progress. */
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
    // An answer that comes too late is dropped.
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
      // Data that waits for its reader is not a delay of the server.
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
    hint:
      'check that the endpoint is an S3 server, and that no other program writes to the place of ' +
      'the vault',
  });
}

function stopped(): AgentError {
  return new AgentError('VAULT_UNREACHABLE', 'the server stopped answering', {
    hint: 'check that the server runs',
  });
}

/** A listing that is requested page by page, and must make progress with each page. */
export class ListProgress {
  readonly #store: string;
  readonly #tokens = new Set<string>();
  #keys = 0;
  #emptyPages = 0;
  #last: Buffer | undefined;

  constructor(store: string) {
    this.#store = store;
  }

  /** Call it with each page: its keys, and the token of the next page. Throws VAULT_STORE_ERROR. */
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
        throw this.#wrong('repeats keys of earlier pages');
      this.#last = bytes;
    }
    if (token === undefined) return;
    // Pages with keys make progress by their keys.
    if (keys.length > 0) this.#tokens.clear();
    if (this.#tokens.has(token)) throw this.#wrong('repeats a page token');
    this.#tokens.add(token);
  }

  #wrong(what: string): AgentError {
    return new AgentError('VAULT_STORE_ERROR', `${this.#store}: a listing ${what}`, {
      hint:
        'check that the endpoint is an S3 server, and that no other program writes to the place of ' +
        'the vault',
    });
  }
}
