/**
 * What a request must be before anything is done for it: one flat list, first fault wins (doc/proto.md,
 * "Request types", "Command flags", "Error values"). And the way back: what of the system's errors a client
 * is told.
 */
import { errnoCode } from '../../base/errors.ts';
import { commandFlagNames, commandName, NBD_CMD, NBD_CMD_FLAG, NBD_ERROR } from '../protocol/constants.ts';
import type { Request } from '../protocol/request.ts';

/** What was negotiated, as far as requests are judged by it. */
export interface TransmissionTerms {
  /** Bytes. */
  readonly size: number;
  readonly readOnly: boolean;
  readonly structured: boolean;
  readonly fastZero: boolean;
  /** Bytes. */
  readonly maximumPayload: number;
  /** Id of base:allocation; undefined where it was not negotiated. */
  readonly allocationContext: number | undefined;
}

export interface Refusal {
  /** NBD_ERROR. */
  readonly error: number;
  readonly message: string;
}

const { FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO } = NBD_CMD_FLAG;

/** Flags that each command knows. FUA is taken with every command, for clients are known to send it so. */
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
/** Writing past the end is a matter of space, as the specification has it. */
const outOfSpace: ReadonlySet<number> = new Set([NBD_CMD.WRITE, NBD_CMD.WRITE_ZEROES]);

/** What is wrong with a request, or undefined. NBD_CMD_DISC is not asked about. */
export function refusal(request: Request, terms: TransmissionTerms): Refusal | undefined {
  const { type, flags, offset, length } = request;
  const known = knownFlags.get(type);
  if (known === undefined) return refuse(NBD_ERROR.EINVAL, `${commandName(type)} is not known here`);
  const command = commandName(type);
  const strange = flags & ~known;
  if (strange !== 0) return refuse(NBD_ERROR.EINVAL, `${command} does not take ${commandFlagNames(strange)}`);
  if ((flags & DF) !== 0 && !terms.structured)
    return refuse(NBD_ERROR.EINVAL, `${command} with NBD_CMD_FLAG_DF needs structured replies`);
  if ((flags & FAST_ZERO) !== 0 && !terms.fastZero)
    return refuse(NBD_ERROR.EINVAL, 'fast zeroes are not offered for this export');
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

/** Names of system errors that the protocol can pass on; the rest is EIO. */
const passedOn: ReadonlyMap<string, number> = new Map([
  ...Object.entries(NBD_ERROR),
  ['EOPNOTSUPP', NBD_ERROR.ENOTSUP],
  ['EACCES', NBD_ERROR.EPERM],
  ['EROFS', NBD_ERROR.EPERM],
  ['EDQUOT', NBD_ERROR.ENOSPC],
  ['EFBIG', NBD_ERROR.ENOSPC],
]);

/** What a client is told of a failed backend. */
export function refusalOf(error: unknown): Refusal {
  const message = error instanceof Error ? error.message : String(error);
  return refuse(passedOn.get(errnoCode(error) ?? '') ?? NBD_ERROR.EIO, message);
}

function refuse(error: number, message: string): Refusal {
  return { error, message };
}
