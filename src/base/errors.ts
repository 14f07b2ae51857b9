/**
 * The one error class that reaches people. The message names the thing and the numbers that disagree, the
 * hint names the next step. Everything else that is thrown is a defect and is shown as INTERNAL.
 */
import { type ErrorCode, errorKinds } from './error-codes.ts';

/** What a person or a script gets: one JSON object on stderr, one body of the API. */
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

  /** The inverse of `toDocument`, for errors that crossed a socket or a thread. */
  static fromDocument(document: ErrorDocument): AgentError {
    const known = document.code in errorKinds ? document.code : 'INTERNAL';
    return new AgentError(
      known,
      document.message,
      document.hint === undefined ? {} : { hint: document.hint },
    );
  }
}

/** Turns whatever was thrown into an AgentError; a stranger becomes INTERNAL with its cause kept. */
export function toAgentError(thrown: unknown): AgentError {
  if (thrown instanceof AgentError) return thrown;
  if (thrown instanceof Error && thrown.name === 'AbortError')
    return new AgentError('CANCELLED', 'Cancelled', { cause: thrown });
  const message = thrown instanceof Error ? thrown.message : String(thrown);
  return new AgentError('INTERNAL', message, { cause: thrown });
}

/** The `code` of a Node system error (`ENOENT`, …), or undefined for anything else. */
export function errnoCode(thrown: unknown): string | undefined {
  if (typeof thrown !== 'object' || thrown === null || !('code' in thrown)) return undefined;
  return typeof thrown.code === 'string' ? thrown.code : undefined;
}
