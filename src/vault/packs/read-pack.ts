/** Reads packs back: their directories for the index, and all their parts for checks and repairs. */
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
import type { VaultCore } from './vault-core.ts';

/** Large enough for the directory of a full pack of 64 KiB chunks that compress to a third. */
const suffixLength = 40 * 1024;

export interface ReadDirectoryOptions extends StoreOptions {
  /** Bytes of the object, if they are known. This saves a request. */
  readonly size?: number | undefined;
}

/**
 * Reads a pack's directory with one request, or two if it is long. Throws VAULT_DAMAGED, VAULT_OBJECT_MISSING and
 * errors of the store. It does not read the header; only `openPack` does.
 */
export async function readDirectory(
  vault: VaultCore,
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
    throw damaged(id, `was listed with ${size} bytes but has ${length}`);
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

async function sizeOf(vault: VaultCore, key: string, options: StoreOptions): Promise<number | undefined> {
  return (await vault.store.head(key, options))?.size;
}

/** Only the header, which is additional data, has the kind. So both kinds are tried. */
function openDirectory(
  { secrets }: VaultCore,
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

/** A part of a pack that was read as a whole: its content, or why it cannot be opened (VAULT_DAMAGED). */
export type OpenedPart =
  { readonly part: PackPart; readonly plain: Buffer } | { readonly part: PackPart; readonly error: unknown };

export interface OpenedPack {
  readonly directory: PackDirectory;
  /** Opens one part after the other and computes its name again. */
  readonly parts: () => Generator<OpenedPart>;
}

/** Opens a pack from all its bytes. Any altered bit is detected. Throws VAULT_DAMAGED. */
export function openPack(vault: VaultCore, id: string, bytes: Buffer): OpenedPack {
  const kind = parseHeader(id, bytes.subarray(0, headerLength));
  const trailer = bytes.subarray(Math.max(0, bytes.length - trailerLength));
  const { directoryLength } = parseTrailer(id, bytes.length, trailer);
  const start = bytes.length - trailerLength - directoryLength;
  const sealed = bytes.subarray(start, start + directoryLength);
  const directory = openDirectory(vault, id, bytes.length, start, sealed, [kind]);
  return { directory, parts: () => openParts(vault, directory, bytes) };
}

/**
 * Opens the parts of a directory, which may come from the index or an earlier read. `bytes` start at the beginning of
 * the pack and may be truncated.
 */
export function* openParts(
  { secrets }: VaultCore,
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
        throw damaged(id, `has a part at ${part.offset} that does not match its name`);
      yield { part, plain };
    } catch (error) {
      yield { part, error };
    }
  }
}
