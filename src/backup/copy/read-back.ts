/**
 * Reads data back from the target: a whole set, which is compared with its fingerprints, or the samples of the data
 * that was just written.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { isZero } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { inParallel } from '../../base/in-parallel.ts';
import type { Target } from '../../block/target.ts';
import { fingerprintSize, fingerprintUnit } from '../../tracking/fingerprints.ts';
import { markShared } from './atomic-bitmap.ts';
import type { PieceReaderDependencies } from './piece-reader.ts';
import type { CompareResult, RunResult } from './messages.ts';
import type { Witness } from './witnesses.ts';

export interface ReadBackDependencies extends Pick<
  PieceReaderDependencies,
  'control' | 'thread' | 'hasher' | 'fingerprints' | 'samples'
> {
  readonly targetZero: Bitmap;
  readonly found: Bitmap;
}

export class ReadBack {
  readonly #dependencies: ReadBackDependencies;
  /** A function, since a reconnect brings another target. */
  readonly #target: () => Target;
  #mismatches = { first: -1, count: 0 };

  constructor(target: () => Target, dependencies: ReadBackDependencies) {
    this.#target = target;
    this.#dependencies = dependencies;
  }

  /** Returns the mismatches of `verify` since the last call. */
  takeMismatches(): RunResult['mismatches'] {
    const found = this.#mismatches;
    this.#mismatches = { first: -1, count: 0 };
    return found.count > 0 ? found : undefined;
  }

  /** Reads these bytes from the target, and compares them with their fingerprints. */
  async verify(offset: number, length: number): Promise<void> {
    const { control, thread, hasher, fingerprints, found } = this.#dependencies;
    const data = await this.read(offset, length);
    const prints = Buffer.alloc(Math.ceil(length / fingerprintUnit) * fingerprintSize);
    fingerprints?.read(offset / fingerprintUnit, prints);
    for (let at = 0, unit = 0; at < length; at += fingerprintUnit, unit++) {
      const known = prints.subarray(unit * fingerprintSize, (unit + 1) * fingerprintSize);
      // A unit that was sent without a fingerprint cannot be compared.
      if (known.every((byte) => byte === 0)) continue;
      const bytes = data.subarray(at, Math.min(at + fingerprintUnit, length));
      control.add(thread, 'verified', bytes.length);
      if (hasher.hash(bytes).equals(known)) continue;
      markShared(found, offset + at, bytes.length);
      if (this.#mismatches.count++ === 0) this.#mismatches.first = offset + at;
    }
  }

  /** Reads the sampled units back. Throws TARGET_MISMATCH. */
  async checkSamples(): Promise<{ bytes: number }> {
    const { samples, hasher, control, thread, targetZero } = this.#dependencies;
    let bytes = 0;
    for (let sample = 0; sample < samples.count; sample++) {
      const { unit, hash } = samples.get(sample);
      if (hash === undefined) continue;
      const offset = unit * fingerprintUnit;
      const length = Math.min(fingerprintUnit, targetZero.size - offset);
      const got = hasher.hash(await this.read(offset, length));
      if (!got.equals(hash))
        throw new AgentError(
          'TARGET_MISMATCH',
          `${this.#target().name} returns other data than was written to it: the ${length} bytes at ${offset} have ` +
            `fingerprint ${got.toString('hex')} instead of ${Buffer.from(hash).toString('hex')}`,
          { hint: 'do not trust this image; check the disk and the memory of the receiver' },
        );
      bytes += length;
      control.add(thread, 'verified', length);
    }
    return { bytes };
  }

  /** Reads these places from the target, `width` at a time, and compares them with their hashes. */
  async compare(places: readonly Witness[], width: number): Promise<CompareResult> {
    const result = { compared: 0, differ: 0, first: -1 };
    await inParallel(places, width, async (place) => {
      const same = await this.#isSame(place);
      if (same === undefined) return;
      result.compared++;
      if (same) return;
      result.differ++;
      if (result.first < 0 || place.offset < result.first) result.first = place.offset;
    });
    return result;
  }

  /** Returns undefined if the right content of the place is not known. */
  async #isSame({ offset, length, hash }: Witness): Promise<boolean | undefined> {
    const { hasher, fingerprints } = this.#dependencies;
    const known = Buffer.alloc(fingerprintSize);
    if (hash === 'recorded') fingerprints?.read(offset / fingerprintUnit, known);
    else if (hash !== 'zeros') known.set(hash);
    if (hash !== 'zeros' && known.every((byte) => byte === 0)) return undefined;
    const data = await this.read(offset, length);
    return hash === 'zeros' ? isZero(data) : hasher.hash(data).equals(known);
  }

  /** Reads from the target. At the tail of the device, rounds up to the target's block. */
  async read(offset: number, length: number): Promise<Buffer> {
    const target = this.#target();
    const block = target.minimumBlock;
    const room = Math.ceil(length / block) * block;
    const most = target.maximumPayload;
    if (room <= most) {
      const data = await target.read(offset, room);
      return Buffer.from(data.buffer, data.byteOffset, length);
    }
    const dependencies: Uint8Array[] = [];
    for (let at = 0; at < room; at += most)
      dependencies.push(await target.read(offset + at, Math.min(most, room - at)));
    return Buffer.concat(dependencies, length);
  }
}
