/**
 * Export names of clients: `NAME` or `NAME@SIZE`. NAME is only a file name in the served directory. So slashes, a leading
 * dot and control characters are refused before any file is accessed. SIZE asks for an image of exactly that size
 * (docs/dattosrv.md, "Names").
 */
import { AgentError } from '../../base/errors.ts';
import { parseBytes } from '../../base/bytes.ts';
import { ExportError } from './backend.ts';

/** The longest name. It leaves room within NAME_MAX (255 bytes) for the temporary name of a new image. */
export const maximumNameBytes = 200;

/** The largest image: 2^53 - 1 bytes. Files can have 16 TiB on ext4 with 4 KiB blocks, 8 EiB on XFS. */
const largestSize = Number.MAX_SAFE_INTEGER;

export interface ExportName {
  readonly name: string;
  /** Bytes; undefined if the name contains no size. */
  readonly size: number | undefined;
}

/** Whether a name is valid: letters, digits and `._+:=,-`, but no dot first. */
export function isImageName(name: string): boolean {
  return (
    /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}._+:=,-]*$/u.test(name) && Buffer.byteLength(name) <= maximumNameBytes
  );
}

/** Parses a client's export name. Throws ExportError `invalid`. */
export function parseExportName(text: string): ExportName {
  const at = text.lastIndexOf('@');
  const name = at < 0 ? text : text.slice(0, at);
  if (!isImageName(name))
    throw new ExportError(
      'invalid',
      `${JSON.stringify(name.slice(0, 80))} cannot be the name of an image: use at most ${maximumNameBytes} bytes of ` +
        `letters, digits and ._+:=,- but no dot first`,
    );
  return { name, size: at < 0 ? undefined : parseSize(text.slice(at + 1)) };
}

function parseSize(text: string): number {
  let size = 0;
  try {
    size = parseBytes(text);
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
  }
  if (size < 1 || size > largestSize)
    throw new ExportError(
      'invalid',
      `${JSON.stringify(text.slice(0, 80))} is not a size: use NAME@SIZE with bytes, or 100M, 2G`,
    );
  return size;
}
