/**
 * A chain: the record that ties a device to a target: what the target is known to hold (fingerprints), and what
 * it lacks (the pending map). Specified in docs/formats/chain.md.
 *
 * The pending map is the whole truth of what is missing: all of the device at the beginning, and from then on
 * what was never sent (free blocks among it) and what has changed since it was sent. It grows on disk before a
 * block goes out, and shrinks only after the target has confirmed (invariant 3), so a cut at any point costs
 * time, never data.
 */
import { createHash } from 'node:crypto';
import { open, readFile, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Bitmap } from '../base/bitmap.ts';
import { replaceFile, syncDirectory } from '../base/durable.ts';
import { type AgentError, toAgentError } from '../base/errors.ts';
import { makeDirectory, unlessAbsent, writingAsync } from '../base/files.ts';
import { freshBytes } from '../base/random.ts';
import { readBitmapFile, writeBitmapFile } from './bitmap-file.ts';
import { createFingerprintFile, fingerprintFileSize } from './fingerprints.ts';
import type { Generation } from './generation.ts';
import type { Epoch } from './tracker.ts';

const recordVersion = 1;

/** What the chain is about. Where any of it differs, the chain is another one, or in doubt. */
export interface ChainSubject {
  /** Filesystem UUID, or empty. */
  readonly uuid: string;
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes from the start of the disk; 0 for what is no partition. */
  readonly partitionStart: number;
  /** The target's URI without secrets. */
  readonly target: string;
  /** The target keeps many devices, and another one has the same UUID: the path tells their chains apart. */
  readonly cloned?: boolean;
}

export interface ChainRecord extends ChainSubject {
  readonly version: typeof recordVersion;
  readonly id: string;
  /** Of the fingerprints: 32 bytes in hex. */
  readonly key: string;
  /** Bytes. */
  readonly targetSize: number;
  /** `incomplete`: no job has completed, so the target holds no image of any instant. */
  readonly state: 'incomplete' | 'complete';
  /** The tracker's epoch that the pending map is true for; null: nothing is known of later writes. */
  readonly epoch: Epoch | null;
  readonly tracker: string;
  /**
   * Generations of the tracker's map in this epoch: the chain holds all that the map had forgotten when it was of one
   * of them. Two from the moment the chain is given what was taken until it is known that the map has forgotten it.
   * Absent or empty: not known, as in records of older versions.
   */
  readonly generations?: readonly Generation[];
  /** The last completed job, and when it ended (ISO 8601); null before. */
  readonly job: string | null;
  readonly completedAt: string | null;
  /** A job has begun to write to the target and has not completed: it holds no image of one instant now. */
  readonly torn?: boolean;
  /**
   * Some of the fingerprint units (their numbers) that the last completed job sent: an older copy of the image is
   * sure to differ there.
   */
  readonly recent?: readonly number[];
  /** For a vault: what the next backup builds on. */
  readonly base?: ChainBase;
}

/** The image of the device in the recovery point that the last completed job made. */
export interface ChainBase {
  /** Id of the point. */
  readonly point: string;
  /** Name of the root page, in hex. */
  readonly root: string;
  readonly levels: number;
  /** State of the index in which all of the map was found: where it is another, the map is looked through again. */
  readonly index: string;
}

type RecordChanges = Partial<Omit<ChainRecord, 'version' | 'id' | keyof ChainSubject>>;

export class Chain {
  readonly pending: Bitmap;
  /**
   * What counts as pending on disk besides, until it is known that it need not: a job that ends now leaves it to
   * the next one. In any unit.
   */
  besides: Bitmap | undefined;
  /**
   * What counts as pending on disk until the job has completed: was sent to a target that keeps nothing of a job
   * that does not complete. In the unit of `pending`. Undefined for other targets.
   */
  unpublished: Bitmap | undefined;
  #directory: string;
  #record: ChainRecord;

  private constructor(directory: string, record: ChainRecord, pending: Bitmap) {
    this.#directory = directory;
    this.#record = record;
    this.pending = pending;
  }

  get directory(): string {
    return this.#directory;
  }

  get record(): ChainRecord {
    return this.#record;
  }

  get key(): Uint8Array {
    return Buffer.from(this.#record.key, 'hex');
  }

  get fingerprintPath(): string {
    return join(this.directory, 'fingerprints');
  }

  /**
   * A new chain: nothing is known of the target. It lies beside an earlier one of the same device and target, and
   * takes its place with `adopt`.
   */
  static async create(
    parent: string,
    subject: ChainSubject,
    options: { readonly targetSize: number; readonly unit: number },
  ): Promise<Chain> {
    const id = chainId(subject);
    const directory = join(parent, `${id}${beside}`);
    await writingAsync(directory, () => rm(directory, { recursive: true, force: true }));
    await makeDirectory(directory);
    createFingerprintFile(join(directory, 'fingerprints'), subject.size);
    const pending = new Bitmap(subject.size, options.unit);
    pending.fill(true);
    const chain = new Chain(
      directory,
      {
        ...subject,
        version: recordVersion,
        id,
        key: freshBytes(32).toString('hex'),
        targetSize: options.targetSize,
        state: 'incomplete',
        epoch: null,
        tracker: 'none',
        job: null,
        completedAt: null,
      },
      pending,
    );
    await chain.savePending();
    await chain.save({});
    return chain;
  }

  /** Takes the place of an earlier chain, durably. */
  async adopt(): Promise<void> {
    if (!this.#directory.endsWith(beside)) return;
    const place = this.#directory.slice(0, -beside.length);
    await writingAsync(place, async () => {
      await rm(place, { recursive: true, force: true });
      await rename(this.#directory, place);
      this.#directory = place;
      await syncDirectory(dirname(place));
    });
  }

  /**
   * The chain of this device and target; undefined if there is none, or its files are damaged. Throws FILE_ERROR if they
   * cannot be read.
   */
  static async open(parent: string, subject: ChainSubject, unit: number): Promise<Chain | undefined> {
    return Chain.#read(join(parent, chainId(subject)), unit);
  }

  /** True if there are files of this chain, damaged or not. Throws FILE_ERROR. */
  static async exists(parent: string, subject: ChainSubject): Promise<boolean> {
    const directory = join(parent, chainId(subject));
    return (await unlessAbsent(directory, stat(directory))) !== undefined;
  }

  /**
   * All chains whose record fits, one after the other, so that memory holds one pending map at a time. A chain that
   * cannot be read is given to `unreadable`. Throws FILE_ERROR without it.
   */
  static async *all(
    parent: string,
    unit: number,
    fits: (record: ChainRecord) => boolean = () => true,
    unreadable: (error: AgentError) => void = rethrow,
  ): AsyncGenerator<Chain> {
    const entries = await unlessAbsent(parent, readdir(parent, { withFileTypes: true }));
    for (const entry of entries ?? []) {
      if (entry.isFile() || entry.name.endsWith(beside)) continue;
      let chain: Chain | undefined;
      try {
        chain = await Chain.#read(join(parent, entry.name), unit, fits);
      } catch (thrown) {
        unreadable(toAgentError(thrown));
      }
      if (chain !== undefined) yield chain;
    }
  }

  static async #read(
    directory: string,
    unit: number,
    fits: (record: ChainRecord) => boolean = () => true,
  ): Promise<Chain | undefined> {
    const path = join(directory, 'chain.json');
    const text = await unlessAbsent(path, readFile(path, 'utf8'));
    const record = text === undefined ? undefined : parseRecord(text);
    if (record === undefined || !fits(record)) return undefined;
    const pending = await readBitmapFile(join(directory, 'pending'));
    const printsPath = join(directory, 'fingerprints');
    const fingerprints = await unlessAbsent(printsPath, stat(printsPath));
    if (pending?.bitmap.size !== record.size || fingerprints?.size !== fingerprintFileSize(record.size))
      return undefined;
    // Both files have to be of the generation: either of them alone may be an older copy.
    const generations = (record.generations ?? []).filter((each) => pending.generations.includes(each));
    return new Chain(directory, { ...record, generations }, inUnit(pending.bitmap, unit));
  }

  /** Makes the pending map durable as it is now, after the fingerprints that count where it has no bits. */
  async savePending(): Promise<void> {
    await writingAsync(this.fingerprintPath, async () => {
      const fingerprints = await open(this.fingerprintPath, 'r');
      try {
        await fingerprints.datasync();
      } finally {
        await fingerprints.close();
      }
    });
    let { pending } = this;
    if (this.besides !== undefined || this.unpublished !== undefined) {
      pending = pending.clone();
      for (const also of [this.besides, this.unpublished])
        if (also !== undefined) pending.or(inUnit(also, pending.unit));
    }
    await writeBitmapFile(join(this.directory, 'pending'), pending, this.#record.generations);
  }

  /**
   * The blocks that the target may hold data of, whether they are in use or not, in the unit of the pending map.
   * Empty where nothing is recorded: it serves to give space back, and nothing is believed of it.
   */
  async readHeld(): Promise<Bitmap> {
    const { size, unit } = this.pending;
    const held = await readBitmapFile(join(this.directory, 'held'));
    return held?.bitmap.size === size ? inUnit(held.bitmap, unit) : new Bitmap(size, unit);
  }

  /** Durable when it resolves. */
  async saveHeld(held: Bitmap): Promise<void> {
    await writeBitmapFile(join(this.directory, 'held'), held);
  }

  /** True if the chain was given all that the map has forgotten in this epoch up to this generation. */
  isInStep(epoch: Epoch, generation: Generation): boolean {
    return isInStep(this.#record, epoch, generation);
  }

  /** Makes the pending map durable with what was just taken, and records which generations it is complete for. */
  async saveTaken(generations: readonly Generation[]): Promise<void> {
    this.#record = { ...this.#record, generations };
    await this.savePending();
    await this.save({});
  }

  /** Changes the record, durably. */
  async save(changes: RecordChanges): Promise<void> {
    this.#record = { ...this.#record, ...changes };
    const path = join(this.directory, 'chain.json');
    await replaceFile(path, `${JSON.stringify(this.#record, undefined, 2)}\n`);
  }

  /**
   * The target holds an image of an instant, and the record says so. What was sent to a target that had kept nothing of
   * the job counts as pending until the record names the image that has it: a cut in between costs time, never data.
   */
  async complete(changes: Omit<RecordChanges, 'state' | 'torn'>): Promise<void> {
    this.#record = { ...this.#record, generations: changes.generations ?? [] };
    await this.savePending();
    await this.save({ ...changes, state: 'complete', torn: false });
    if (this.unpublished === undefined) return;
    this.unpublished = undefined;
    await this.savePending();
  }

  /** Nothing is known of the target any more: all of the device is pending, and no fingerprint counts. Durable. */
  async reset(targetSize: number): Promise<void> {
    this.pending.fill(true);
    this.besides = undefined;
    this.#record = { ...this.#record, generations: [] };
    await this.savePending();
    await this.forgetFingerprints();
    await this.save({
      state: 'incomplete',
      epoch: null,
      tracker: 'none',
      job: null,
      completedAt: null,
      targetSize,
      recent: [],
    });
  }

  /** All fingerprints become "not known", durably. */
  async forgetFingerprints(): Promise<void> {
    // In place: the copying threads have the file open.
    await writingAsync(this.fingerprintPath, async () => {
      const file = await open(this.fingerprintPath, 'r+');
      try {
        const { size } = await file.stat();
        await file.truncate(0);
        await file.truncate(size);
        await file.datasync();
      } finally {
        await file.close();
      }
    });
  }

  async remove(): Promise<void> {
    await rm(this.directory, { recursive: true, force: true });
  }
}

/** Ends the name of a chain's folder that has not taken its place yet. */
const beside = '.new';

/** Names the folder: stable for a device and a target. */
export function chainId(subject: ChainSubject): string {
  const { uuid, path, cloned = false } = subject;
  const device = uuid === '' ? path : cloned ? `${uuid} ${path}` : uuid;
  return createHash('sha256').update(`${device}\n${subject.target}`).digest('hex').slice(0, 32);
}

/** See `Chain.isInStep`. */
export function isInStep(record: ChainRecord, epoch: Epoch, generation: Generation): boolean {
  return record.epoch?.id === epoch.id && record.generations?.includes(generation) === true;
}

function rethrow(error: AgentError): never {
  throw error;
}

/** Undefined for what this version did not write. */
function parseRecord(text: string): ChainRecord | undefined {
  try {
    const record = JSON.parse(text) as Partial<ChainRecord>;
    const known = record.version === recordVersion && /^[0-9a-f]{64}$/.test(record.key ?? '');
    return known ? (record as ChainRecord) : undefined;
  } catch {
    return undefined;
  }
}

/** The same map in another unit; a coarser bit is set where any of its finer ones is. */
export function inUnit(bitmap: Bitmap, unit: number): Bitmap {
  if (bitmap.unit === unit) return bitmap;
  const result = new Bitmap(bitmap.size, unit);
  for (const { offset, length } of bitmap.extents()) result.mark(offset, length);
  return result;
}
