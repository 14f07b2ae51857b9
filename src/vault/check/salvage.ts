/**
 * Reads the parts of a damaged pack that can still be opened. A readable directory gives the places of the parts.
 * Without it (for example in a truncated pack), the parts are found one after the other.
 *
 * Each part begins at the end of the previous one. It is encrypted as a stream with a nonce that depends only on its
 * offset. Its length is visible after decryption: a zstd frame has a length, and an uncompressed part is a whole
 * chunk or page. The tag then verifies it, and its name is computed from the content.
 */
import { createDecipheriv } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { type Name, Namer, nameLength } from '../names.ts';
import {
  type PackKind,
  type PartPlace,
  headerLength,
  maximumPlainLength,
  parseHeader,
  tagLength,
} from '../packs/format.ts';
import { openPack } from '../packs/read-pack.ts';
import { PackCipher } from '../packs/sealing.ts';
import type { VaultCore } from '../packs/vault-core.ts';
import { parseZstdFrame } from './zstd-frame.ts';

export interface SalvagedPart {
  readonly kind: PackKind;
  readonly name: Name;
  readonly plain: Buffer;
}

const pageHeadLength = 8;
/** Number of offsets that are tried before other work gets a turn. */
const offsetsPerTurn = 4096;

/** Yields the parts that can be opened, each with the name of its content. */
export async function* salvageParts(
  vault: VaultCore,
  id: string,
  bytes: Buffer,
  signal?: AbortSignal,
): AsyncGenerator<SalvagedPart> {
  const opened = openOrUndefined(vault, id, bytes);
  if (opened !== undefined) {
    const { kind } = opened.directory;
    for (const part of opened.parts())
      if ('plain' in part) yield { kind, name: part.part.name, plain: part.plain };
    return;
  }
  for (const kind of kindsOf(id, bytes)) {
    let found = false;
    for await (const part of new Scan(vault, id, kind, bytes, signal).parts()) {
      found = true;
      yield part;
    }
    if (found) return;
  }
}

function openOrUndefined(
  vault: VaultCore,
  id: string,
  bytes: Buffer,
): ReturnType<typeof openPack> | undefined {
  try {
    return openPack(vault, id, bytes);
  } catch (error) {
    if (error instanceof AgentError && error.code === 'VAULT_DAMAGED') return undefined;
    throw error;
  }
}

/** The header may be damaged too. Everything in it is known, except for the kind. */
function kindsOf(id: string, bytes: Buffer): readonly PackKind[] {
  try {
    return [parseHeader(id, bytes.subarray(0, headerLength))];
  } catch {
    return ['chunks', 'pages'];
  }
}

class Scan {
  readonly #kind: PackKind;
  readonly #bytes: Buffer;
  readonly #chunkSize: number;
  readonly #cipher: PackCipher;
  readonly #key: Buffer;
  readonly #namer: Namer;
  readonly #signal: AbortSignal | undefined;

  constructor(vault: VaultCore, id: string, kind: PackKind, bytes: Buffer, signal: AbortSignal | undefined) {
    const { secrets } = vault;
    this.#kind = kind;
    this.#bytes = bytes;
    this.#chunkSize = vault.chunkSize;
    this.#cipher = new PackCipher(secrets, id, kind);
    this.#key = secrets.packKey(id);
    this.#namer = new Namer(kind === 'chunks' ? secrets.chunkNameKey : secrets.pageNameKey);
    this.#signal = signal;
  }

  async *parts(): AsyncGenerator<SalvagedPart> {
    for (let offset: number | undefined = headerLength; offset !== undefined;) {
      this.#signal?.throwIfAborted();
      await turn();
      const here = this.#open(offset);
      if (here === undefined) {
        offset = await this.#next(offset);
        continue;
      }
      yield { kind: this.#kind, name: Buffer.from(this.#namer.name(here.plain)), plain: here.plain };
      offset += here.place.encodedLength + tagLength;
    }
  }

  /** Returns the part at this offset, if there is one that can be opened. */
  #open(offset: number): { place: PartPlace; plain: Buffer } | undefined {
    for (const place of this.#candidates(offset)) {
      const end = offset + place.encodedLength + tagLength;
      if (end > this.#bytes.length) continue;
      try {
        return { place, plain: this.#cipher.openPart(place, this.#bytes.subarray(offset, end)) };
      } catch (error) {
        if (!(error instanceof AgentError)) throw error;
      }
    }
    return undefined;
  }

  /** Returns the places that the decrypted bytes may have. */
  #candidates(offset: number): PartPlace[] {
    const found: PartPlace[] = [];
    const head = this.#decipher(offset, pageHeadLength);
    if (head.length < pageHeadLength) return found;
    const frame =
      head.readUInt32LE(0) === 0xfd2fb528
        ? parseZstdFrame(this.#decipher(offset, maximumPlainLength))
        : undefined;
    if (frame !== undefined) {
      const plainLength = frame.contentLength ?? this.#chunkSize;
      if (plainLength >= 1 && plainLength <= maximumPlainLength)
        found.push({ offset, encodedLength: frame.length, plainLength, encoding: 1 });
    }
    const length =
      this.#kind === 'chunks' ? this.#chunkSize : pageHeadLength + nameLength * head.readUInt32LE(4);
    if (length <= maximumPlainLength)
      found.push({ offset, encodedLength: length, plainLength: length, encoding: 0 });
    return found;
  }

  /**
   * Returns the start of the next part after one that cannot be opened: the end that it gives, or the next start of a
   * frame.
   */
  async #next(offset: number): Promise<number | undefined> {
    for (const { encodedLength } of this.#candidates(offset)) {
      const next = offset + encodedLength + tagLength;
      if (this.#open(next) !== undefined) return next;
    }
    const last = this.#bytes.length - tagLength;
    for (let at = offset + 1; at < last; at++) {
      if (at % offsetsPerTurn === 0) await turn();
      this.#signal?.throwIfAborted();
      if (this.#startsFrame(at) && this.#open(at) !== undefined) return at;
    }
    return undefined;
  }

  #startsFrame(offset: number): boolean {
    const head = this.#decipher(offset, 4);
    return head.length === 4 && head.readUInt32LE(0) === 0xfd2fb528;
  }

  /**
   * Returns the plaintext from this offset, not verified. GCM encrypts with AES in counter mode, from counter 2 (SP
   * 800-38D).
   */
  #decipher(offset: number, length: number): Buffer {
    const counter = Buffer.alloc(16);
    counter.writeBigUInt64LE(BigInt(offset), 0);
    counter[15] = 2;
    const sealed = this.#bytes.subarray(offset, offset + length);
    return createDecipheriv('aes-256-ctr', this.#key, counter).update(sealed);
  }
}
