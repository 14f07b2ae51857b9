/** The list of written ranges with their digests. A range takes 32 bytes, so a full disk of 10 TiB takes 40 MiB. */
import type { Extent } from '../../base/extents.ts';
import type { Job } from './thread-messages.ts';

const digestBytes = 20;
export const recordBytes = 12 + digestBytes;

/** Encodes a range: offset (8 bytes), length (4 bytes), both little-endian, and digest. */
export function encodeRange({ offset, length }: Extent, digest: Uint8Array): Buffer {
  const record = Buffer.alloc(recordBytes);
  record.writeUInt32LE(offset % 2 ** 32, 0);
  record.writeUInt32LE(Math.floor(offset / 2 ** 32), 4);
  record.writeUInt32LE(length, 8);
  record.set(digest.subarray(0, digestBytes), 12);
  return record;
}

export function decodeRange(records: Buffer, at: number): Extent & { readonly digest: Buffer } {
  return {
    offset: records.readUInt32LE(at) + records.readUInt32LE(at + 4) * 2 ** 32,
    length: records.readUInt32LE(at + 8),
    digest: records.subarray(at + 12, at + recordBytes),
  };
}

export class WrittenRanges {
  #records = Buffer.alloc(64 * recordBytes);
  #count = 0;
  #bytes = 0;

  /** The sum of the lengths, bytes. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Adds a range. `digest` has 32 bytes, of which 20 are kept. `length` is below 2^32. */
  add({ offset, length }: Extent, digest: Uint8Array): void {
    const at = this.#count * recordBytes;
    if (at === this.#records.length) {
      const larger = Buffer.alloc(2 * this.#records.length);
      this.#records.copy(larger);
      this.#records = larger;
    }
    this.#records.set(encodeRange({ offset, length }, digest), at);
    this.#count++;
    this.#bytes += length;
  }

  *jobs(): Generator<Extract<Job, { do: 'verify' }>> {
    for (let at = 0; at < this.#count * recordBytes; at += recordBytes) {
      const { digest, ...range } = decodeRange(this.#records, at);
      yield { do: 'verify', ...range, digest: Uint8Array.from(digest) };
    }
  }
}
