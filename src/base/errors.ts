/**
 * The only error class that users see. The message names the thing and the numbers that disagree; the hint names the
 * next step. Any other error that is thrown is a defect and is shown as INTERNAL.
 */
import { type ErrorCode, errorKinds } from './error-codes.ts';

/** The error as users and scripts get it: one JSON object on stderr, or the body of an API response. */
export interface ErrorDocument {
  code: ErrorCode;
  message: string;
  hint?: string;
}

export class AgentError extends Error {
  readonly code: ErrorCode;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, options: { hint?: string; cause?: unknown } = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.name = 'AgentError';
    this.code = code;
    this.hint = options.hint;
  }

  /** Exit code of a command that ends with this error. */
  get exitCode(): number {
    return errorKinds[this.code].exit;
  }

  toDocument(): ErrorDocument {
    const document: ErrorDocument = { code: this.code, message: this.message };
    if (this.hint !== undefined) document.hint = this.hint;
    return document;
  }

  /** The inverse of `toDocument`, for errors that came over a socket or from another thread. */
  static fromDocument(document: ErrorDocument): AgentError {
    const known = document.code in errorKinds ? document.code : 'INTERNAL';
    return new AgentError(
      known,
      document.message,
      document.hint === undefined ? {} : { hint: document.hint },
    );
  }
}

/** The next step for errors of the system that no caller causes, by errno's name. */
export const systemHints: Readonly<Record<string, string>> = {
  ENOSPC: 'make room on its filesystem (df, df -i), then start again',
  EDQUOT: 'raise the quota or make room on its filesystem, then start again',
  EROFS:
    'make its filesystem writable again (one with errors becomes read-only: see dmesg), then start again',
  EMFILE: 'raise the limit of open files of the daemon (LimitNOFILE= in its unit), then start again',
  ENFILE: 'raise the limit of open files of the machine (sysctl fs.file-max), then start again',
  EIO: 'check the disk below its filesystem (dmesg, smartctl), then start again',
};

/** True if the machine lacks something, such as disk space: not a defect. EIO is excluded: it may be a device's. */
function lacking(thrown: unknown): boolean {
  const code = errnoCode(thrown);
  return code !== undefined && code !== 'EIO' && code in systemHints;
}

/**
 * Turns any thrown value into an AgentError. An unknown error becomes INTERNAL, with the error as its cause. If undoing
 * after an error failed too, the first error counts.
 */
export function toAgentError(thrown: unknown): AgentError {
  if (thrown instanceof AgentError) return thrown;
  if (thrown instanceof SuppressedError) return toAgentError(thrown.suppressed);
  if (thrown instanceof Error && thrown.name === 'AbortError')
    return new AgentError('CANCELLED', 'Cancelled', { cause: thrown });
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  const hint = lacking(thrown) ? systemHints[errnoCode(thrown)!] : undefined;
  if (hint !== undefined) return new AgentError('FILE_ERROR', message, { hint, cause: thrown });
  return new AgentError('INTERNAL', message, { cause: thrown });
}

/** The `code` of a Node system error (`ENOENT`, …), or undefined for anything else. */
export function errnoCode(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return undefined;
  return typeof thrown.code === 'string' ? thrown.code : undefined;
}
