/**
 * What servers answer, as errors for people: refused options, failed requests, and the peculiarities of
 * Debian's nbd-server, each with its next step.
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

/** A Debian nbd-server runs as the user `nbd`, and is started by root: the usual reason for all of this. */
export const nbdUserHint =
  'Debian\'s nbd-server runs as the user "nbd": give it the image ("chown nbd IMAGE", and let it reach the ' +
  'directory), or set "user = root" in /etc/nbd-server/config; else look whether the export is configured read-only';

interface Named {
  readonly name: string;
  readonly exportName: string;
}

/** An option that we cannot do without was refused. */
export function refusal(peer: Named, option: number, type: number, text: string): AgentError {
  const said = `${peer.name} answered ${optionReplyName(type)} to ${optionName(option)}`;
  const message = text === '' ? said : `${said}: ${text}`;
  switch (type) {
    case NBD_REP.ERR_TLS_REQD:
      return new AgentError('NBD_TLS', `${message}: the server requires TLS`, {
        hint: 'write nbds:// (or nbds+unix://), with tls-certificates=DIRECTORY or tls-psk-file=FILE',
      });
    case NBD_REP.ERR_UNKNOWN:
      return new AgentError('NBD_EXPORT_UNKNOWN', `${message} (export "${peer.exportName}")`, {
        hint: `list what there is: nbdinfo --list ${peer.name}`,
      });
    case NBD_REP.ERR_SHUTDOWN:
      return new AgentError('NBD_CONNECTION_LOST', `${message}: the server is shutting down`);
    case NBD_REP.ERR_POLICY:
      return new AgentError('NBD_REFUSED', message, {
        hint: `the server may not be able to open its image; ${nbdUserHint}`,
      });
    default:
      return new AgentError('NBD_REFUSED', message, {
        hint: "check the export's name and size, and look into the server's own log",
      });
  }
}

/** TLS was asked for and cannot be had. There is no way on in the clear. */
export function tlsRequiredButMissing(peer: Named, why: string): AgentError {
  return new AgentError('NBD_TLS', `${peer.name} offers no TLS: ${why}`, {
    hint: 'start the server with TLS; or, if nobody else can be on the line, use nbd:// instead of nbds://',
  });
}

/**
 * The server hung up when TLS seemed to stand: in TLS 1.3 it looks at our certificate after we think that the
 * handshake is over, and GnuTLS servers say nothing.
 */
export function endedAfterTls(peer: Named): AgentError {
  return new AgentError('NBD_TLS', `${peer.name} closed the connection right after the TLS handshake`, {
    hint: 'the server may want a client certificate that it knows: client-cert.pem and client-key.pem beside ca-cert.pem',
  });
}

/** What the server's numbers suggest an operator should look at, or undefined. */
export function exportAdvice(info: {
  readonly size: number;
  readonly readOnly: boolean;
}): string | undefined {
  if (info.size === 0) return `the export has 0 bytes. ${nbdUserHint}`;
  if (info.readOnly) return `the export is read-only. ${nbdUserHint}`;
  return undefined;
}

/** EROFS; not one of the protocol's, but old servers pass their errno through. */
const EROFS = 30;
/** EDQUOT and EFBIG should have been mapped to ENOSPC by the server. */
const fullErrors: ReadonlySet<number> = new Set([NBD_ERROR.ENOSPC, 122, 27]);

/** A request that the server answered with an error; `error` is its NBD_ERROR. */
export class NbdRequestError extends AgentError {
  readonly error: number;

  constructor(code: ErrorCode, message: string, error: number, hint?: string) {
    super(code, message, hint === undefined ? {} : { hint });
    this.error = error;
  }
}

/** A request failed at the server. `message` is what the server said, may be empty. */
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
  if (fullErrors.has(error)) return make('TARGET_FULL', 'free space at the receiver, then start again');
  if (error === NBD_ERROR.EPERM || error === EROFS) return make('TARGET_READ_ONLY', nbdUserHint);
  return make('TARGET_WRITE_ERROR', "look into the receiver's own log");
}
