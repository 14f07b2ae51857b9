/**
 * What the NBD server serves: the interface between the protocol and whatever holds the bytes (an image file,
 * a recovery point, an overlay). One backend belongs to one connection, so that it may keep a file descriptor
 * or a cache of its own; several backends of one export see each other's completed writes.
 *
 * Every method may answer at once (the thread was blocked meanwhile, which is cheapest for the page cache) or
 * with a promise. The server has checked offsets and lengths against `size`, and calls no writing method of a
 * read-only backend. Methods throw `BackendError`, or a system error whose `code` says the rest.
 */

/** What the protocol can tell a client (docs/protocol-support.md, error values). */
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
  /** Nothing is allocated there. */
  readonly hole: boolean;
  /** It reads as zeros for sure. */
  readonly zero: boolean;
}

export interface ZeroOptions {
  /** The space may be freed; false asks for room to be kept. */
  readonly hole: boolean;
  /** Fail with ENOTSUP, and alter nothing, rather than be as slow as writing zeros. */
  readonly fast: boolean;
}

export interface ExportBackend {
  /** Bytes; does not change. */
  readonly size: number;
  readonly readOnly: boolean;
  /** Several connections see each other's completed writes, and a flush on one covers all. */
  readonly multiConnection: boolean;
  /** `zero` can be asked to be fast. */
  readonly fastZero: boolean;

  /** Fills `target` from `offset`. */
  read(target: Uint8Array, offset: number): MaybePromise<void>;
  /** `data` is only valid until the write has completed. */
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
   * The runs from `offset` on, in order, at least one, together at most `length`; fewer where `limit` runs are
   * reached. Where nothing is known one run with both flags false is always right.
   */
  status(offset: number, length: number, limit: number): MaybePromise<readonly StatusExtent[]>;
  /**
   * How many bytes from `offset` on (1 to `length`) are alike: a hole that reads as zeros, or data. Asked
   * before each structured read, so it is cheap or absent.
   */
  run?(offset: number, length: number): MaybePromise<StatusExtent>;
  /** Called once, after the last request has ended, however the connection ended. */
  close(): MaybePromise<void>;
}

/** Size and nature of an export, without opening it. */
export interface ExportDescription {
  /** The export's own name: for the default export, what it stands for. */
  readonly name: string;
  readonly size: number;
  readonly readOnly: boolean;
  readonly multiConnection: boolean;
  readonly fastZero: boolean;
  /** Shown to people who list exports; may be empty. */
  readonly description: string;
}

/** Why an export cannot be had; the message goes to the client as it is. */
export class ExportError extends Error {
  /**
   * `unknown`: no such export; `policy`: it exists but this server does not give it; `invalid`: the request
   * contradicts it (a wrong size).
   */
  readonly reason: 'unknown' | 'policy' | 'invalid';

  constructor(reason: 'unknown' | 'policy' | 'invalid', message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = 'ExportError';
    this.reason = reason;
  }
}

/** The exports of a server. Names are what clients send; the empty one is the default export. */
export interface ExportProvider {
  list(): MaybePromise<readonly { readonly name: string; readonly description: string }[]>;
  /** Looks, creates nothing. Throws ExportError. */
  describe(name: string): MaybePromise<ExportDescription>;
  /** Opens (and creates where that is allowed). Throws ExportError. */
  open(name: string): MaybePromise<ExportBackend>;
}
