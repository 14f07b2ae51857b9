/** Which ranges were written, with their digests: 32 bytes each, so that those of a full disk of 10 TiB take 40 MiB. */
import type { Extent } from '../../base/extents.ts';
import type { Job } from './messages.ts';

const digestBytes = 20;
const recordBytes = 12 + digestBytes;

export class WrittenRanges {
  #records = Buffer.alloc(64 * recordBytes);
  #count = 0;
  #bytes = 0;

  /** Sum of the lengths. */
  get bytes(): number {
    return this.#bytes;
  }

  /** `digest`: 32 bytes, of which 20 are kept. `length` below 2^32. */
  add({ offset, length }: Extent, digest: Uint8Array): void {
    const at = this.#count * recordBytes;
    if (at === this.#records.length) {
      const larger = Buffer.alloc(2 * this.#records.length);
      this.#records.copy(larger);
      this.#records = larger;
    }
    this.#records.writeUIntLE(offset % 2 ** 32, at, 4);
    this.#records.writeUIntLE(Math.floor(offset / 2 ** 32), at + 4, 4);
    this.#records.writeUInt32LE(length, at + 8);
    this.#records.set(digest.subarray(0, digestBytes), at + 12);
    this.#count++;
    this.#bytes += length;
  }

  *jobs(): Generator<Extract<Job, { do: 'verify' }>> {
    for (let at = 0; at < this.#count * recordBytes; at += recordBytes)
      yield {
        do: 'verify',
        offset: this.#records.readUInt32LE(at) + this.#records.readUInt32LE(at + 4) * 2 ** 32,
        length: this.#records.readUInt32LE(at + 8),
        digest: Uint8Array.from(this.#records.subarray(at + 12, at + recordBytes)),
      };
  }
}
