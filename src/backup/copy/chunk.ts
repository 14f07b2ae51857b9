/**
 * The reading half of a copying thread: reads one chunk and decides for each 64 KiB unit of it whether it is
 * data, zeros, or the same as its fingerprint says.
 */
import { isZero } from '../../base/bytes.ts';
import { isReadError, readSurvivors } from '../../block/read-errors.ts';
import { AgentError } from '../../base/errors.ts';
import type { DirectSource } from '../../block/source.ts';
import type { ReadErrorRecord } from '../status.ts';
import type { Control } from './control.ts';
import { type FingerprintFile, type UnitHasher, fingerprintSize, fingerprintUnit } from './fingerprints.ts';
import type { PassMode } from './messages.ts';
import type { Samples } from './samples.ts';
import { requestSize } from './outgoing.ts';

export type Verdict = 'data' | 'zero' | 'same';

const unitsPerChunk = requestSize / fingerprintUnit;

export interface ChunkParts {
  readonly source: DirectSource;
  readonly hasher: UnitHasher;
  readonly fingerprints: FingerprintFile | undefined;
  readonly samples: Samples;
  readonly onReadError: 'fail' | 'zero';
  readonly control: Control;
  readonly thread: number;
}

export class ChunkReader {
  readonly #parts: ChunkParts;
  readonly #prints = Buffer.alloc(unitsPerChunk * fingerprintSize);
  readonly #sampled: number[] = new Array<number>(unitsPerChunk).fill(-1);
  readonly verdicts: Verdict[] = new Array<Verdict>(unitsPerChunk).fill('data');
  /** Of the run so far; whoever begins a run empties it. */
  readErrors: ReadErrorRecord[] = [];

  constructor(parts: ChunkParts) {
    this.#parts = parts;
  }

  /** Fills `data` from `offset` (a multiple of the unit) and `verdicts` for its units. */
  async read(mode: PassMode, offset: number, data: Buffer): Promise<void> {
    const { control, thread, fingerprints, samples } = this.#parts;
    const start = performance.now();
    await this.#readSource(offset, data);
    const firstUnit = offset / fingerprintUnit;
    const units = Math.ceil(data.length / fingerprintUnit);
    const prints = this.#prints.subarray(0, units * fingerprintSize);
    const compare = mode !== 'copy';
    this.#sampled.fill(-1);
    samples.within(
      firstUnit,
      firstUnit + units,
      (sample, unit) => (this.#sampled[unit - firstUnit] = sample),
    );
    if (compare) fingerprints?.read(firstUnit, prints);
    let changed = false;
    for (let unit = 0; unit < units; unit++) {
      const bytes = data.subarray(
        unit * fingerprintUnit,
        Math.min((unit + 1) * fingerprintUnit, data.length),
      );
      const sample = this.#sampled[unit] ?? -1;
      let verdict: Verdict | undefined;
      if (fingerprints !== undefined || sample >= 0) {
        const hash = this.#parts.hasher.hash(bytes);
        if (sample >= 0) samples.record(sample, hash);
        if (fingerprints !== undefined) {
          const known = prints.subarray(unit * fingerprintSize, (unit + 1) * fingerprintSize);
          if (compare && known.equals(hash)) verdict = 'same';
          else {
            hash.copy(known);
            changed = true;
          }
        }
      }
      this.verdicts[unit] = verdict ?? (isZero(bytes) ? 'zero' : 'data');
    }
    // While frozen no file is written; the fingerprints of what is kept are written when it is sent.
    if (changed && mode !== 'frozen') fingerprints?.write(firstUnit, prints);
    control.add(thread, 'read', data.length);
    control.add(thread, 'readMs', performance.now() - start);
  }

  /** A copy of the fingerprints of `length` bytes at `from` in the chunk that was read last. */
  printsOf(from: number, length: number): Buffer {
    const [first, end] = [from / fingerprintUnit, Math.ceil((from + length) / fingerprintUnit)];
    return Buffer.from(this.#prints.subarray(first * fingerprintSize, end * fingerprintSize));
  }

  writePrints(offset: number, prints: Buffer): void {
    this.#parts.fingerprints?.write(offset / fingerprintUnit, prints);
  }

  /** The fingerprints of a range that was kept while frozen and is now being sent. */
  record(offset: number, length: number, data: Buffer | undefined): void {
    const { fingerprints, hasher } = this.#parts;
    if (fingerprints === undefined) return;
    for (let at = 0; at < length; at += fingerprintUnit) {
      const bytes = Math.min(fingerprintUnit, length - at);
      const unit = data === undefined ? zeroUnit.subarray(0, bytes) : data.subarray(at, at + bytes);
      fingerprints.write((offset + at) / fingerprintUnit, hasher.hash(unit));
    }
  }

  async #readSource(offset: number, data: Buffer): Promise<void> {
    const { source, onReadError } = this.#parts;
    try {
      source.readInto(data, offset);
    } catch (error) {
      if (!isReadError(error)) throw error;
      const bad = await readSurvivors((at, into) => source.readInto(into, at), offset, data, {
        sectorSize: Math.max(source.sectorSize, source.alignment),
      });
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
    { hint: 'replace the disk; --on-read-error=zero saves the rest and records what is missing', cause },
  );
}

const zeroUnit = Buffer.alloc(fingerprintUnit);
