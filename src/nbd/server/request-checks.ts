/**
 * Checks a request before it is executed, in one flat list; the first fault counts (doc/proto.md, "Request types", "Command
 * flags", "Error values"). Also maps system errors to the errors that a client gets.
 */
import { errnoCode } from '../../base/errors.ts';
import { commandFlagNames, commandName, NBD_CMD, NBD_CMD_FLAG, NBD_ERROR } from '../protocol/constants.ts';
import type { Request } from '../protocol/request.ts';

/** The negotiated terms that the checks need. */
export interface TransmissionTerms {
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly structured: boolean;
  readonly fastZero: boolean;
  /** Bytes. */
  readonly maximumPayload: number;
  /** ID of base:allocation; undefined if it was not negotiated. */
  readonly allocationContext: number | undefined;
}

export interface Refusal {
  /** NBD_ERROR. */
  readonly error: number;
  readonly message: string;
}

const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO } = NBD_CMD_FLAG;

/** The flags of each command. FUA is accepted with every command, since some clients send it always. */
const knownFlags: ReadonlyMap<number, number> = new Map<number, number>([
  [NBD_CMD.READ, FUA | DF],
  [NBD_CMD.WRITE, FUA],
  [NBD_CMD.FLUSH, FUA],
  [NBD_CMD.TRIM, FUA],
  [NBD_CMD.CACHE, FUA],
  [NBD_CMD.WRITE_ZEROES, FUA | NO_HOLE | FAST_ZERO],
  [NBD_CMD.BLOCK_STATUS, FUA | REQ_ONE],
]);

const writing: ReadonlySet<number> = new Set([NBD_CMD.WRITE, NBD_CMD.TRIM, NBD_CMD.WRITE_ZEROES]);
/** Commands for which an offset past the end is ENOSPC, as the specification requires. */
const outOfSpace: ReadonlySet<number> = new Set([NBD_CMD.WRITE, NBD_CMD.WRITE_ZEROES]);

/** Returns the fault of a request, or undefined. Not called for NBD_CMD_DISC. */
export function refusal(request: Request, terms: TransmissionTerms): Refusal | undefined {
  const { type, flags, offset, length } = request;
  const known = knownFlags.get(type);
  if (known === undefined) return refuse(NBD_ERROR.EINVAL, `${commandName(type)} is not supported`);
  const command = commandName(type);
  const strange = flags & ~known;
  if (strange !== 0)
    return refuse(NBD_ERROR.EINVAL, `${command} does not support ${commandFlagNames(strange)}`);
  if ((flags & DF) !== 0 && !terms.structured)
    return refuse(NBD_ERROR.EINVAL, `${command} with NBD_CMD_FLAG_DF needs structured replies`);
  if ((flags & FAST_ZERO) !== 0 && !terms.fastZero)
    return refuse(NBD_ERROR.EINVAL, 'this export does not support fast zeroes');
  if (type === NBD_CMD.FLUSH) return undefined;
  if (terms.readOnly && writing.has(type)) return refuse(NBD_ERROR.EPERM, `${command} on a read-only export`);
  if (type === NBD_CMD.BLOCK_STATUS && terms.allocationContext === undefined)
    return refuse(NBD_ERROR.EINVAL, `${command} without a metadata context`);
  if (offset + length > terms.size)
    return refuse(
      outOfSpace.has(type) ? NBD_ERROR.ENOSPC : NBD_ERROR.EINVAL,
      `${command} of ${length} bytes at ${offset} goes past the end at ${terms.size}`,
    );
  if (type === NBD_CMD.READ && length > terms.maximumPayload)
    return refuse(
      terms.structured ? NBD_ERROR.EOVERFLOW : NBD_ERROR.EINVAL,
      `${command} of ${length} bytes is larger than ${terms.maximumPayload}`,
    );
  if (type === NBD_CMD.WRITE && length > terms.maximumPayload)
    return refuse(NBD_ERROR.EINVAL, `${command} of ${length} bytes is larger than ${terms.maximumPayload}`);
  if (type === NBD_CMD.BLOCK_STATUS && length === 0) return refuse(NBD_ERROR.EINVAL, `${command} of 0 bytes`);
  return undefined;
}

/** The system errors that the protocol can report; all others become EIO. */
const passedOn: ReadonlyMap<string, number> = new Map([
  ...Object.entries(NBD_ERROR),
  ['EOPNOTSUPP', NBD_ERROR.ENOTSUP],
  ['EACCES', NBD_ERROR.EPERM],
  ['EROFS', NBD_ERROR.EPERM],
  ['EDQUOT', NBD_ERROR.ENOSPC],
  ['EFBIG', NBD_ERROR.ENOSPC],
]);

/** Returns the error that a client gets for a failed backend. */
export function refusalOf(error: unknown): Refusal {
  const message = error instanceof Error ? error.message : String(error);
  return refuse(passedOn.get(errnoCode(error) ?? '') ?? NBD_ERROR.EIO, message);
}

function refuse(error: number, message: string): Refusal {
  return { error, message };
}
