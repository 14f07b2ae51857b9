/**
 * Turns the error answers of servers into AgentErrors with a next step: refused options, failed requests, and the
 * peculiarities of Debian's nbd-server.
 */
import type { ErrorCode } from '../../base/error-codes.ts';
import { AgentError } from '../../base/errors.ts';
import {
  NBD_CMD,
  NBD_ERROR,
  NBD_REP,
  commandName,
  errorName,
  optionName,
  optionReplyName,
} from '../protocol/constants.ts';

/** The usual cause of refusals: root starts Debian's nbd-server, but the server runs as the user `nbd`. */
export const nbdUserHint =
  'Debian\'s nbd-server runs as the user "nbd": make nbd the owner of the image ("chown nbd IMAGE") and let nbd enter the ' +
  'directory, or set "user = root" in /etc/nbd-server/config. Or check whether the export is configured as read-only';

interface Named {
  readonly name: string;
  readonly exportName: string;
}

/** Returns the error for a refused option that we need. */
export function refusal(peer: Named, option: number, type: number, text: string): AgentError {
  const said = `${peer.name} answered ${optionReplyName(type)} to ${optionName(option)}`;
  const message = text === '' ? said : `${said}: ${text}`;
  switch (type) {
    case NBD_REP.ERR_TLS_REQD:
      return new AgentError('NBD_TLS', `${message}: the server requires TLS`, {
        hint: 'use nbds:// (or nbds+unix://) with tls-certificates=DIRECTORY or tls-psk-file=FILE',
      });
    case NBD_REP.ERR_UNKNOWN:
      return new AgentError('NBD_EXPORT_UNKNOWN', `${message} (export "${peer.exportName}")`, {
        hint: `list the exports of the server: nbdinfo --list ${peer.name}`,
      });
    case NBD_REP.ERR_SHUTDOWN:
      return new AgentError('NBD_CONNECTION_LOST', `${message}: the server is shutting down`);
    case NBD_REP.ERR_POLICY:
      return new AgentError('NBD_REFUSED', message, {
        hint: `check that the server can open its image. ${nbdUserHint}`,
      });
    default:
      return new AgentError('NBD_REFUSED', message, {
        hint: "check the name and size of the export, and the server's log",
      });
  }
}

/** Returns the error if TLS is required but not possible. There is no fallback to plain text. */
export function tlsRequiredButMissing(peer: Named, why: string): AgentError {
  return new AgentError('NBD_TLS', `${peer.name} offers no TLS: ${why}`, {
    hint: 'start the server with TLS; or use nbd:// instead of nbds:// if no one else can access the network between',
  });
}

/**
 * Returns the error if the server hangs up right after the TLS handshake. In TLS 1.3 a server checks our certificate only
 * after our side of the handshake has ended, and GnuTLS servers then hang up without a message.
 */
export function endedAfterTls(peer: Named): AgentError {
  return new AgentError('NBD_TLS', `${peer.name} closed the connection right after the TLS handshake`, {
    hint: 'if the server requires a client certificate, put client-cert.pem and client-key.pem beside ca-cert.pem',
  });
}

/** Returns advice for the operator if the export is empty or read-only, else undefined. */
export function exportAdvice(info: {
  readonly size: number;
  readonly readOnly: boolean;
}): string | undefined {
  if (info.size === 0) return `the export has 0 bytes. ${nbdUserHint}`;
  if (info.readOnly) return `the export is read-only. ${nbdUserHint}`;
  return undefined;
}

/** EROFS is not an error of the protocol, but old servers pass their errno on. */
const EROFS = 30;
/** ENOSPC, EDQUOT and EFBIG. A server should map the last two to ENOSPC, but some do not. */
const fullErrors: ReadonlySet<number> = new Set([NBD_ERROR.ENOSPC, 122, 27]);

/** The server answered a request with an error; `error` is its NBD_ERROR. */
export class NbdRequestError extends AgentError {
  readonly error: number;

  constructor(code: ErrorCode, message: string, error: number, hint?: string) {
    super(code, message, hint === undefined ? {} : { hint });
    this.error = error;
  }
}

/** Returns the error for a request that failed at the server. `message` is the server's text, which may be empty. */
export function requestError(
  name: string,
  command: number,
  offset: number,
  length: number,
  error: number,
  message: string,
): NbdRequestError {
  const where = command === NBD_CMD.FLUSH ? '' : ` of ${length} bytes at ${offset}`;
  const said = message === '' ? '' : `: ${message}`;
  const errno = error === EROFS ? 'EROFS' : errorName(error);
  const text = `${name} answered ${errno} to ${commandName(command)}${where}${said}`;
  const make = (code: ErrorCode, hint?: string): NbdRequestError =>
    new NbdRequestError(code, text, error, hint);
  if (error === NBD_ERROR.ESHUTDOWN) return make('NBD_CONNECTION_LOST');
  if (command === NBD_CMD.READ || command === NBD_CMD.BLOCK_STATUS) return make('NBD_SERVER_ERROR');
  if (fullErrors.has(error))
    return make('TARGET_FULL', 'free space at the receiver, then start the job again');
  if (error === NBD_ERROR.EPERM || error === EROFS) return make('TARGET_READ_ONLY', nbdUserHint);
  return make('TARGET_WRITE_ERROR', "check the receiver's log");
}
