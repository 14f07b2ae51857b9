/**
 * Fingerprints record what the target is known to hold: 16 bytes of keyed BLAKE3 for each 64 KiB unit of the device.
 * They are in a sparse file (256 MiB per TiB of device; nothing in memory). Sixteen zero bytes mean "not known", and
 * compare unequal to everything. The key is random per chain, so that an attacker who controls the contents of the
 * device cannot look for collisions. A fingerprint counts only while its unit has no bit in the chain's pending map.
 * The fingerprint is written when the unit is sent, and the pending map shrinks when the target confirms.
 *
 * The file may lie on a filesystem that is frozen. Then reading the file is allowed and writing is not.
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';
import fs from 'node:fs';
import { alignUp } from '../base/bytes.ts';
import { Descriptor } from '../base/descriptor.ts';
import { writing } from '../base/files.ts';

/** Bytes of device per fingerprint. */
export const fingerprintUnit = 64 * 1024;
/** Bytes per fingerprint. */
export const fingerprintSize = 16;

/** Hashes units with one reused hasher; the result is valid until the next call. */
export class UnitHasher {
  readonly #hasher: Blake3Hasher;

  /** `key` is 32 bytes. */
  constructor(key: Buffer) {
    this.#hasher = Blake3Hasher.newKeyed(key);
  }

  /** Returns the fingerprint of one unit's bytes. */
  hash(data: Buffer): Buffer {
    this.#hasher.reset();
    this.#hasher.update(data);
    const digest = this.#hasher.digestBuffer().subarray(0, fingerprintSize);
    // All zeros means "not known". The one digest in 2^128 that is all zeros is changed.
    if (digest.readDoubleLE(0) === 0 && digest.every((byte) => byte === 0)) digest[0] = 1;
    return digest;
  }
}

/** Returns the size of the file in bytes for a device of `deviceSize` bytes. */
export function fingerprintFileSize(deviceSize: number): number {
  return (alignUp(deviceSize, fingerprintUnit) / fingerprintUnit) * fingerprintSize;
}

/** Creates the file for a device of `deviceSize` bytes, as one hole. Replaces an existing file. Throws FILE_ERROR. */
export function createFingerprintFile(path: string, deviceSize: number): void {
  writing(path, () => {
    const fd = fs.openSync(path, fs.constants.O_RDWR | fs.constants.O_CREAT | fs.constants.O_TRUNC, 0o600);
    try {
      fs.ftruncateSync(fd, fingerprintFileSize(deviceSize));
    } finally {
      fs.closeSync(fd);
    }
  });
}

/** The file, with synchronous access for a copying thread. Throws FILE_ERROR. */
export class FingerprintFile {
  readonly #file: Descriptor;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
    const flags = fs.constants.O_RDWR | fs.constants.O_NOATIME;
    this.#file = new Descriptor(
      writing(path, () => fs.openSync(path, flags)),
      path,
    );
  }

  /**
   * Fills `into` with the fingerprints of the units from `firstUnit` on. Fingerprints past the end of the file are "not
   * known".
   */
  read(firstUnit: number, into: Buffer): void {
    const got = fs.readSync(this.#file.fd, into, 0, into.length, firstUnit * fingerprintSize);
    into.fill(0, got);
  }

  write(firstUnit: number, from: Buffer): void {
    writing(this.#path, () => {
      for (let done = 0; done < from.length;)
        done += fs.writeSync(
          this.#file.fd,
          from,
          done,
          from.length - done,
          firstUnit * fingerprintSize + done,
        );
    });
  }

  close(): void {
    this.#file.close();
  }
}
