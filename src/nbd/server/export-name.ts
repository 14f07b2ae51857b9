/**
 * Names of exports as clients send them: `NAME` or `NAME@SIZE`. NAME is a file's name in the served directory
 * and nothing else, so what could mean another place (slashes, a leading dot, control characters) is refused
 * before any file is touched. SIZE asks for an image of exactly that size (docs/dattosrv.md, "Names").
 */
import { AgentError } from '../../base/errors.ts';
import { parseBytes } from '../../base/bytes.ts';
import { ExportError } from './backend.ts';

/** Leaves room within NAME_MAX (255 bytes) for the temporary name of an image that is being made. */
export const maximumNameBytes = 200;

/** What files can be: ext4 with 4 KiB blocks ends at 16 TiB, XFS at 8 EiB; here, at 2^53 - 1. */
const largestSize = Number.MAX_SAFE_INTEGER;

export interface ExportName {
  readonly name: string;
  /** Bytes; undefined where the name says nothing of it. */
  readonly size: number | undefined;
}

/** True for what may be a file's name in the served directory: letters, digits and `._+:=,-`, no dot first. */
export function isImageName(name: string): boolean {
  return (
    /^[\p{L}\p{N}_][\p{L}\p{M}\p{N}._+:=,-]*$/u.test(name) && Buffer.byteLength(name) <= maximumNameBytes
  );
}

/** Takes a client's name apart. Throws ExportError `invalid`. */
export function parseExportName(text: string): ExportName {
  const at = text.lastIndexOf('@');
  const name = at < 0 ? text : text.slice(0, at);
  if (!isImageName(name))
    throw new ExportError(
      'invalid',
      `${JSON.stringify(name.slice(0, 80))} cannot be the name of an image: use up to ${maximumNameBytes} bytes of ` +
        `letters, digits and ._+:=,- with no dot first`,
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
      `${JSON.stringify(text.slice(0, 80))} is no size: write NAME@SIZE with bytes, or 100M, 2G`,
    );
  return size;
}
