/**
 * The reading half of a copying thread. It reads one piece of the device (at most one request). For each 64 KiB unit of
 * it, it finds whether the unit is zeros and whether it differs from its fingerprint.
 */
import { isZero } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { Extent } from '../../base/extents.ts';
import { isReadError, readSurvivors } from '../../block/read-errors.ts';
import type { DirectSource } from '../../block/source.ts';
import {
  type FingerprintFile,
  type UnitHasher,
  fingerprintSize,
  fingerprintUnit,
} from '../../tracking/fingerprints.ts';
import type { ReadErrorRecord } from '../../api/job-status.ts';
import type { Control } from './control.ts';
import type { Manners } from './manners.ts';
import { requestSize } from './target-writer.ts';
import type { Samples } from './samples.ts';

const unitsPerPiece = requestSize / fingerprintUnit;

export interface PieceReaderDependencies {
  readonly source: DirectSource;
  readonly hasher: UnitHasher;
  readonly fingerprints: FingerprintFile | undefined;
  readonly samples: Samples;
  readonly onReadError: 'fail' | 'zero';
  readonly control: Control;
  readonly thread: number;
  /** The manners that `source` is read with. Undefined if it is read without. */
  readonly manners?: Manners | undefined;
}

export class PieceReader {
  readonly #dependencies: PieceReaderDependencies;
  readonly #known = Buffer.alloc(unitsPerPiece * fingerprintSize);
  readonly #read = Buffer.alloc(unitsPerPiece * fingerprintSize);
  readonly #samples = new Array<number>(unitsPerPiece).fill(-1);
  #firstUnit = 0;
  #units = 0;
  #data: Buffer = this.#read;
  /** Read errors of the run so far. The caller empties the list when a run begins. */
  readErrors: ReadErrorRecord[] = [];

  constructor(dependencies: PieceReaderDependencies) {
    this.#dependencies = dependencies;
  }

  /** Units in the piece that was read. */
  get units(): number {
    return this.#units;
  }

  /** Fills `data` from `offset` (a multiple of the unit), and hashes the units whose hash is needed. */
  async read(offset: number, data: Buffer): Promise<void> {
    const { control, thread, fingerprints, samples, hasher, manners } = this.#dependencies;
    const start = performance.now();
    await this.fill(offset, data);
    this.#data = data;
    this.#firstUnit = offset / fingerprintUnit;
    this.#units = Math.ceil(data.length / fingerprintUnit);
    this.#samples.fill(-1);
    samples.within(this.#firstUnit, this.#firstUnit + this.#units, (sample, unit) => {
      this.#samples[unit - this.#firstUnit] = sample;
    });
    for (let unit = 0; unit < this.#units; unit++)
      if (fingerprints !== undefined || (this.#samples[unit] ?? -1) >= 0)
        hasher.hash(this.#bytes(unit)).copy(this.#read, unit * fingerprintSize);
    control.add(thread, 'read', data.length);
    // The speed of these reads predicts the speed in the freeze, in which no read has to wait for other programs.
    control.add(thread, 'readMs', performance.now() - start - (manners?.takeWaited() ?? 0));
  }

  /** Loads the fingerprints of the piece's units for `differs`. */
  loadFingerprints(): void {
    this.#dependencies.fingerprints?.read(
      this.#firstUnit,
      this.#known.subarray(0, this.#units * fingerprintSize),
    );
  }

  /** True if the unit differs from its fingerprint, or has none. */
  differs(unit: number): boolean {
    return (
      this.#dependencies.fingerprints === undefined ||
      this.#print(unit).compare(this.#known, unit * fingerprintSize, (unit + 1) * fingerprintSize) !== 0
    );
  }

  /**
   * Notes the hash of a unit that (wholly or in part) goes to the target, if it is a sample. Returns true for zeros.
   */
  touch(unit: number): boolean {
    const sample = this.#samples[unit] ?? -1;
    if (sample >= 0) this.#dependencies.samples.record(sample, this.#print(unit));
    return isZero(this.#bytes(unit));
  }

  /** Writes the fingerprints of all units of the piece. */
  saveFingerprints(): void {
    this.#dependencies.fingerprints?.write(
      this.#firstUnit,
      this.#read.subarray(0, this.#units * fingerprintSize),
    );
  }

  #bytes(unit: number): Buffer {
    return this.#data.subarray(
      unit * fingerprintUnit,
      Math.min((unit + 1) * fingerprintUnit, this.#data.length),
    );
  }

  #print(unit: number): Buffer {
    return this.#read.subarray(unit * fingerprintSize, (unit + 1) * fingerprintSize);
  }

  /**
   * Fills `data` from `offset` of the source. If that fails, only the `wanted` extents are read: a bad sector between
   * them is not needed, so it is not an error.
   */
  async fill(
    offset: number,
    data: Buffer,
    wanted: readonly Extent[] = [{ offset, length: data.length }],
  ): Promise<void> {
    const { source, onReadError } = this.#dependencies;
    try {
      source.readInto(data, offset);
    } catch (error) {
      if (!isReadError(error)) throw error;
      const sectorSize = Math.max(source.sectorSize, source.alignment);
      const bad: Extent[] = [];
      for (const { offset: at, length } of wanted) {
        const into = data.subarray(at - offset, at - offset + length);
        bad.push(
          ...(await readSurvivors((from, part) => source.readInto(part, from), at, into, { sectorSize })),
        );
      }
      if (bad.length > 0 && onReadError === 'fail') throw badSectors(source.name, bad, error);
      this.readErrors.push(...bad);
    }
  }
}

function badSectors(name: string, bad: readonly ReadErrorRecord[], cause: unknown): AgentError {
  const bytes = bad.reduce((sum, { length }) => sum + length, 0);
  return new AgentError(
    'DEVICE_READ_ERROR',
    `${name} cannot be read at ${bad[0]?.offset ?? 0} (${bytes} bytes in ${bad.length} places nearby, after retries)`,
    {
      hint: 'replace the disk; --on-read-error=zero saves the rest and records the unreadable places',
      cause,
    },
  );
}
