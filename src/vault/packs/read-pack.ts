/** Packs as a whole, read back: their directories for the index, and every part of them for checks and repairs. */
import { Namer } from '../names.ts';
import type { StoreOptions } from '../store/object-store.ts';
import {
  type PackDirectory,
  type PackKind,
  type PackPart,
  damaged,
  headerLength,
  packObject,
  parseDirectory,
  parseHeader,
  parseTrailer,
  tagLength,
  trailerLength,
} from './format.ts';
import { PackCipher } from './sealing.ts';
import type { VaultParts } from './vault-parts.ts';

/** Holds the directory of a full pack of chunks of 64 KiB that compress to a third. */
const suffixLength = 40 * 1024;

export interface ReadDirectoryOptions extends StoreOptions {
  /** Bytes of the object where they are known, which saves a request. */
  readonly size?: number | undefined;
}

/**
 * Reads a pack's directory: one request, two for a long one. Throws VAULT_DAMAGED, VAULT_OBJECT_MISSING, and what the
 * store throws. The header is not read, which only `openPack` does.
 */
export async function readDirectory(
  vault: VaultParts,
  id: string,
  { size, signal }: ReadDirectoryOptions = {},
): Promise<PackDirectory> {
  const key = packObject(id);
  const tail = await vault.store.get(key, { suffix: suffixLength, signal });
  const length =
    tail.length < suffixLength
      ? tail.length
      : (size ?? (await sizeOf(vault, key, { signal })) ?? tail.length);
  if (size !== undefined && length !== size)
    throw damaged(id, `was listed with ${size} bytes and has ${length}`);
  const { directoryLength } = parseTrailer(
    id,
    length,
    tail.subarray(Math.max(0, tail.length - trailerLength)),
  );
  const start = length - trailerLength - directoryLength;
  const sealed =
    directoryLength + trailerLength <= tail.length
      ? tail.subarray(tail.length - trailerLength - directoryLength, tail.length - trailerLength)
      : await vault.store.get(key, { offset: start, length: directoryLength, signal });
  return openDirectory(vault, id, length, start, sealed);
}

async function sizeOf(vault: VaultParts, key: string, options: StoreOptions): Promise<number | undefined> {
  return (await vault.store.head(key, options))?.size;
}

/** The kind is told by the header alone, which is additional data: one of the two opens it. */
function openDirectory(
  { secrets }: VaultParts,
  id: string,
  size: number,
  start: number,
  sealed: Uint8Array,
  kinds: readonly PackKind[] = ['chunks', 'pages'],
): PackDirectory {
  let failure: unknown;
  for (const kind of kinds) {
    let plain;
    try {
      plain = new PackCipher(secrets, id, kind).openDirectory(start, sealed);
    } catch (error) {
      failure = error;
      continue;
    }
    return { id, kind, size, ...parseDirectory(id, plain, start) };
  }
  throw failure;
}

/** A part of a pack that was read as a whole: what it holds, or why it cannot be opened (VAULT_DAMAGED). */
export type OpenedPart =
  { readonly part: PackPart; readonly plain: Buffer } | { readonly part: PackPart; readonly error: unknown };

export interface OpenedPack {
  readonly directory: PackDirectory;
  /** Opens one part after the other, each with its name computed again. */
  readonly parts: () => Generator<OpenedPart>;
}

/** Opens a pack of which all bytes are at hand; any bit that was altered shows here. Throws VAULT_DAMAGED. */
export function openPack(vault: VaultParts, id: string, bytes: Buffer): OpenedPack {
  const kind = parseHeader(id, bytes.subarray(0, headerLength));
  const trailer = bytes.subarray(Math.max(0, bytes.length - trailerLength));
  const { directoryLength } = parseTrailer(id, bytes.length, trailer);
  const start = bytes.length - trailerLength - directoryLength;
  const sealed = bytes.subarray(start, start + directoryLength);
  const directory = openDirectory(vault, id, bytes.length, start, sealed, [kind]);
  return { directory, parts: () => openParts(vault, directory, bytes) };
}

/**
 * Opens the parts that a directory (perhaps one that the index or an earlier reading gave) says are in these bytes of
 * the pack, which begin at its beginning and may be cut short.
 */
export function* openParts(
  { secrets }: VaultParts,
  { id, kind, parts }: Pick<PackDirectory, 'id' | 'kind' | 'parts'>,
  bytes: Buffer,
): Generator<OpenedPart> {
  const cipher = new PackCipher(secrets, id, kind);
  const namer = new Namer(kind === 'chunks' ? secrets.chunkNameKey : secrets.pageNameKey);
  for (const part of parts) {
    try {
      const end = part.offset + part.encodedLength + tagLength;
      const plain = cipher.openPart(part, bytes.subarray(part.offset, end));
      if (!namer.name(plain).equals(part.name))
        throw damaged(id, `has a part at ${part.offset} that does not carry its name`);
      yield { part, plain };
    } catch (error) {
      yield { part, error };
    }
  }
}
