/**
 * What a failed read means, and how to go on from one: the errnos of vanished devices and of bad sectors, and
 * the halving search that saves every readable sector of a range. Pure over a read function.
 */
import { AgentError, errnoCode } from '../base/errors.ts';
import type { Extent } from '../base/extents.ts';

/** The device is not there any more. ESHUTDOWN and ENOLINK come from SCSI transports that were taken down. */
const goneCodes: ReadonlySet<string> = new Set([
  'ENXIO',
  'ENODEV',
  'ENOMEDIUM',
  'EMEDIUMTYPE',
  'ESHUTDOWN',
  'ENOLINK',
]);

/**
 * The device is there but does not give the data. The block layer maps its states to these
 * (block/blk-core.c, blk_errors): EIO, ENODATA (medium error), EREMOTEIO (target), EILSEQ (protection),
 * EBADE (reservation conflict), ETIMEDOUT, ETIME; EBADMSG and EUCLEAN come from checking layers.
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

/** Turns what a read of `[offset, offset + length)` threw into DEVICE_GONE or DEVICE_READ_ERROR. */
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

/** Reads a range into the front of `into`; throws DEVICE_READ_ERROR where any of it cannot be read. */
export type ReadRange = (offset: number, into: Uint8Array) => void | Promise<void>;

export interface SurvivorOptions {
  /** Smallest unit that is tried by itself, in bytes: the sector size. */
  readonly sectorSize: number;
  /** Further tries of a range that failed, before it is halved or given up. Default 1. */
  readonly retries?: number;
  readonly signal?: AbortSignal;
}

/**
 * Fills `into` from `offset`; what cannot be read is zeroed and returned, sorted, touching ranges joined. A
 * range that fails is tried again, then halved, down to the sector. Other errors than DEVICE_READ_ERROR pass
 * through. `offset` and the length are multiples of the sector size (the very end of the device excepted).
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
