/**
 * Classifies failed reads by errno, as a vanished device or as bad sectors, and reads around bad sectors. A search that
 * halves the range saves every readable sector. Pure: the caller passes the read function.
 */
import { AgentError, errnoCode } from '../base/errors.ts';
import type { Extent } from '../base/extents.ts';

/** Errnos of a device that is gone. ESHUTDOWN and ENOLINK come from SCSI transports that were shut down. */
const goneCodes: ReadonlySet<string> = new Set([
  'ENXIO',
  'ENODEV',
  'ENOMEDIUM',
  'EMEDIUMTYPE',
  'ESHUTDOWN',
  'ENOLINK',
]);

/**
 * Errnos of a device that exists but does not return the data. The block layer maps its states to these
 * (block/blk-core.c, blk_errors): EIO, ENODATA (medium error), EREMOTEIO (target), EILSEQ (protection),
 * EBADE (reservation conflict), ETIMEDOUT, ETIME. EBADMSG and EUCLEAN come from checking layers.
 */
const unreadableCodes: ReadonlySet<string> = new Set([
  'EIO',
  'ENODATA',
  'EREMOTEIO',
  'EILSEQ',
  'EBADE',
  'EBADMSG',
  'EUCLEAN',
  'ETIMEDOUT',
  'ETIME',
]);

/** Turns the error of a read of `[offset, offset + length)` into DEVICE_GONE or DEVICE_READ_ERROR. */
export function readFailure(name: string, offset: number, length: number, thrown: unknown): unknown {
  const code = errnoCode(thrown);
  if (thrown instanceof AgentError || code === undefined) return thrown;
  if (goneCodes.has(code))
    return deviceGone(name, `reading ${length} bytes at ${offset} gave ${code}`, thrown);
  if (!unreadableCodes.has(code)) return thrown;
  return new AgentError(
    'DEVICE_READ_ERROR',
    `${name}: ${length} bytes at offset ${offset} could not be read (${code})`,
    {
      hint: 'look at the kernel log for the disk; --on-read-error=zero goes on without the unreadable sectors',
      cause: thrown,
    },
  );
}

export function deviceGone(name: string, what: string, cause?: unknown): AgentError {
  return new AgentError('DEVICE_GONE', `${name} vanished or changed its size: ${what}`, {
    hint: 'check that the device is still attached and has its old size, then start a new full backup',
    cause,
  });
}

/** Reads a range into the beginning of `into`. Throws DEVICE_READ_ERROR if any of it cannot be read. */
export type ReadRange = (offset: number, into: Uint8Array) => void | Promise<void>;

export interface SurvivorOptions {
  /** Sector size in bytes: the smallest range that is read by itself. */
  readonly sectorSize: number;
  /** Further attempts to read a range that failed, before it is halved or counted as lost. Default 1. */
  readonly retries?: number;
  readonly signal?: AbortSignal;
}

/**
 * Fills `into` with the data at `offset`. Unreadable ranges are zeroed and returned, sorted and with neighbours joined.
 * A range that fails is read again, then halved, down to one sector. Errors other than DEVICE_READ_ERROR are rethrown.
 * `offset` and the length must be multiples of the sector size, except at the end of the device.
 */
export async function readSurvivors(
  read: ReadRange,
  offset: number,
  into: Uint8Array,
  options: SurvivorOptions,
): Promise<Extent[]> {
  const failed: Extent[] = [];
  const { sectorSize, retries = 1, signal } = options;

  const salvage = async (start: number, end: number): Promise<void> => {
    for (let attempt = 0; attempt <= retries; attempt++) {
      signal?.throwIfAborted();
      try {
        await read(offset + start, into.subarray(start, end));
        return;
      } catch (thrown) {
        if (!isReadError(thrown)) throw thrown;
      }
    }
    const sectors = Math.ceil((end - start) / sectorSize);
    if (sectors > 1) {
      const middle = start + (sectors >> 1) * sectorSize;
      await salvage(start, middle);
      await salvage(middle, end);
      return;
    }
    into.fill(0, start, end);
    const last = failed.at(-1);
    if (last !== undefined && last.offset + last.length === offset + start)
      failed[failed.length - 1] = { offset: last.offset, length: last.length + end - start };
    else failed.push({ offset: offset + start, length: end - start });
  };

  if (into.length > 0) await salvage(0, into.length);
  return failed;
}

export function isReadError(thrown: unknown): thrown is AgentError {
  return thrown instanceof AgentError && thrown.code === 'DEVICE_READ_ERROR';
}
