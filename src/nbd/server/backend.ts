/**
 * The interface between the NBD server and the storage behind an export: an image file, a recovery point, an overlay. Each
 * connection has its own backend, which may keep a file descriptor or a cache. Several backends of one export see each
 * other's completed writes.
 *
 * Every method may return its result directly, after blocking the thread (the fastest way for the page cache), or as a
 * promise. The server has checked offsets and lengths against `size`, and calls no writing method of a read-only backend.
 * Methods throw `BackendError`, or a system error with a `code`.
 */

/** The errors that the protocol can report to a client (docs/protocol-support.md, error values). */
export type BackendErrorCode = 'EPERM' | 'EIO' | 'ENOMEM' | 'EINVAL' | 'ENOSPC' | 'EOVERFLOW' | 'ENOTSUP';

export class BackendError extends Error {
  readonly code: BackendErrorCode;

  constructor(code: BackendErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'BackendError';
    this.code = code;
  }
}

export type MaybePromise<T> = T | Promise<T>;

/** One run of `base:allocation`. */
export interface StatusExtent {
  /** Bytes, at least 1. */
  readonly length: number;
  /** No space is allocated. */
  readonly hole: boolean;
  /** The run certainly reads as zeros. */
  readonly zero: boolean;
}

export interface ZeroOptions {
  /** The space may be freed. False: keep it allocated. */
  readonly hole: boolean;
  /** Fail with ENOTSUP, without any change, rather than be as slow as writing zeros. */
  readonly fast: boolean;
}

export interface ExportBackend {
  /** Bytes; does not change. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Several connections see each other's completed writes, and a flush on one covers all. */
  readonly multiConnection: boolean;
  /** `zero` supports the option `fast`. */
  readonly fastZero: boolean;

  /** Fills `target` from `offset`. */
  read(target: Uint8Array, offset: number): MaybePromise<void>;
  /** Writes `data`, which is valid only until the write has completed. */
  write(data: Uint8Array, offset: number): MaybePromise<void>;
  /** Makes the range read as zeros. */
  zero(offset: number, length: number, options: ZeroOptions): MaybePromise<void>;
  /** A hint that the contents of the range no longer matter. */
  trim(offset: number, length: number): MaybePromise<void>;
  /** Makes all completed writes of all backends of this export durable. */
  flush(): MaybePromise<void>;
  /** A hint that the range will be read soon. */
  cache?(offset: number, length: number): MaybePromise<void>;
  /**
   * Returns the runs from `offset` on: at least one, at most `limit`, together at most `length` bytes. One run with both
   * flags false is always correct.
   */
  status(offset: number, length: number, limit: number): MaybePromise<readonly StatusExtent[]>;
  /**
   * Returns the run at `offset` (1 to `length` bytes): a hole that reads as zeros, or data. The server calls it before each
   * structured read, so it must be cheap, or absent.
   */
  run?(offset: number, length: number): MaybePromise<StatusExtent>;
  /** Called once, after the last request has ended, for any end of the connection. */
  close(): MaybePromise<void>;
}

/** The properties of an export that is not opened. */
export interface ExportDescription {
  /** The export's own name. For the default export, the name that it stands for. */
  readonly name: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly multiConnection: boolean;
  readonly fastZero: boolean;
  /** A text for users who list exports; may be empty. */
  readonly description: string;
}

/** The error of an export that cannot be opened. The message is sent to the client unchanged. */
export class ExportError extends Error {
  /**
   * `unknown`: there is no such export. `policy`: the server does not open this export. `invalid`: the request does not fit
   * the export (a wrong size).
   */
  readonly reason: 'unknown' | 'policy' | 'invalid';

  constructor(reason: 'unknown' | 'policy' | 'invalid', message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ExportError';
    this.reason = reason;
  }
}

/** The exports of a server. Names are as clients send them; the empty name is the default export. */
export interface ExportProvider {
  list(): MaybePromise<readonly { readonly name: string; readonly description: string }[]>;
  /** Describes an export, without creating it. Throws ExportError. */
  describe(name: string): MaybePromise<ExportDescription>;
  /** Opens an export, and creates it if that is allowed. Throws ExportError. */
  open(name: string): MaybePromise<ExportBackend>;
}
