/**
 * A chain is the record that ties a device to a target. It says what the target is known to hold (fingerprints), and
 * what the target lacks (the pending map). Specified in docs/formats/chain.md.
 *
 * The pending map alone lists the missing blocks. At the beginning it covers the whole device. Later it covers blocks that
 * were never sent (free blocks among them) and blocks that have changed since they were sent. It grows on disk before a
 * block is sent, and shrinks only after the target has confirmed (invariant 3). So an interruption at any point costs
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
import { inUnit } from './bitmap-units.ts';
import { createFingerprintFile, fingerprintFileSize } from './fingerprints.ts';
import type { Generation } from './generation.ts';
import type { Epoch } from './tracker.ts';

const recordVersion = 1;

/**
 * The device and the target of a chain. If any of these fields differs, it is another chain, or the chain may be out of
 * date.
 */
export interface ChainSubject {
  /** Filesystem UUID, or empty. */
  readonly uuid: string;
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  /** Bytes from the start of the disk; 0 if the device is not a partition. */
  readonly partitionStart: number;
  /** The target's URI without secrets. */
  readonly target: string;
  /**
   * True if the target keeps many devices and another one has the same UUID. Then the path distinguishes their chains.
   */
  readonly cloned?: boolean;
}

export interface ChainRecord extends ChainSubject {
  readonly version: typeof recordVersion;
  readonly id: string;
  /** Key of the fingerprints: 32 bytes in hex. */
  readonly key: string;
  /** Bytes. */
  readonly targetSize: number;
  /** `incomplete`: no job has completed, so the target does not hold an image of any instant. */
  readonly state: 'incomplete' | 'complete';
  /** The tracker's epoch that the pending map is valid for. Null: later writes are not known. */
  readonly epoch: Epoch | null;
  readonly tracker: string;
  /**
   * Generations of the tracker's map in this epoch. The chain holds all marks that the map had forgotten when it was of
   * one of these generations. There are two from the moment the chain gets taken marks until the map is known to have
   * forgotten them. Absent or empty: not known, as in records of older versions.
   */
  readonly generations?: readonly Generation[];
  /** The last completed job, and when it ended (ISO 8601); null if no job has completed. */
  readonly job: string | null;
  readonly completedAt: string | null;
  /**
   * True if a job has begun to write to the target and has not completed: the target does not hold an image of one
   * instant now.
   */
  readonly torn?: boolean;
  /**
   * Numbers of some fingerprint units that the last completed job sent. An older copy of the image is sure to differ
   * there.
   */
  readonly recent?: readonly number[];
  /** For a vault: the image that the next backup builds on. */
  readonly base?: ChainBase;
}

/** The image of the device in the recovery point that the last completed job made. */
export interface ChainBase {
  /** ID of the recovery point. */
  readonly point: string;
  /** Name of the root page, in hex. */
  readonly root: string;
  readonly levels: number;
  /**
   * The state of the index in which every block of the map was found. If the index has another state, the map is
   * checked again.
   */
  readonly index: string;
}

type RecordChanges = Partial<Omit<ChainRecord, 'version' | 'id' | keyof ChainSubject>>;

export class Chain {
  readonly pending: Bitmap;
  /**
   * Blocks that were sent but whose content is not yet proven current. They are stored as pending, so the next job
   * sends them again if this job stops now. May use a different unit than `pending`.
   */
  unconfirmed: Bitmap | undefined;
  /**
   * Blocks that were sent to a target that keeps nothing of a job that does not complete. They are stored as pending
   * until the job has completed. Same unit as `pending`. Undefined for other targets.
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
   * Creates a chain that knows nothing of the target. It lies beside an earlier chain of the same device and target
   * until `adopt` puts it in that chain's place.
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

  /** Replaces the earlier chain of this device and target, durably. */
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
   * Opens the chain of this device and target. Returns undefined if there is none or its files are damaged. Throws
   * FILE_ERROR if they cannot be read.
   */
  static async open(parent: string, subject: ChainSubject, unit: number): Promise<Chain | undefined> {
    return Chain.#read(join(parent, chainId(subject)), unit);
  }

  /** Returns true if there are files of this chain, damaged or not. Throws FILE_ERROR. */
  static async exists(parent: string, subject: ChainSubject): Promise<boolean> {
    const directory = join(parent, chainId(subject));
    return (await unlessAbsent(directory, stat(directory))) !== undefined;
  }

  /**
   * Yields all chains whose record fits, one after the other, so that memory holds one pending map at a time. Passes
   * the error of an unreadable chain to `unreadable`. Throws FILE_ERROR if the caller gave no `unreadable`.
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
    // A generation counts only if both files name it: either file alone may be an older copy.
    const generations = (record.generations ?? []).filter((each) => pending.generations.includes(each));
    return new Chain(directory, { ...record, generations }, inUnit(pending.bitmap, unit));
  }

  /**
   * Makes the present pending map durable. Syncs the fingerprints first, because they count for every unit that has no
   * bit in the map.
   */
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
    if (this.unconfirmed !== undefined || this.unpublished !== undefined) {
      pending = pending.clone();
      for (const also of [this.unconfirmed, this.unpublished])
        if (also !== undefined) pending.or(inUnit(also, pending.unit));
    }
    await writeBitmapFile(join(this.directory, 'pending'), pending, this.#record.generations);
  }

  /**
   * Reads the map of blocks that the target may hold data of, in use or not, in the unit of the pending map. Empty if
   * none is recorded: the map serves only to give space back, and no correctness depends on it.
   */
  async readHeld(): Promise<Bitmap> {
    const { size, unit } = this.pending;
    const held = await readBitmapFile(join(this.directory, 'held'));
    return held?.bitmap.size === size ? inUnit(held.bitmap, unit) : new Bitmap(size, unit);
  }

  /** Writes the map of `readHeld`. It is durable when the promise resolves. */
  async saveHeld(held: Bitmap): Promise<void> {
    await writeBitmapFile(join(this.directory, 'held'), held);
  }

  /** Returns true if the chain was given all marks that the map has forgotten in this epoch up to this generation. */
  isInStep(epoch: Epoch, generation: Generation): boolean {
    return isInStep(this.#record, epoch, generation);
  }

  /**
   * Makes the pending map durable with the marks that were just taken, and records the generations that the map is
   * complete for.
   */
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
   * Records that the target holds an image of one instant. Blocks sent to a target that keeps nothing of an unfinished
   * job stay pending until the record names the image that has them. So an interruption in between costs time, never
   * data.
   */
  async complete(changes: Omit<RecordChanges, 'state' | 'torn'>): Promise<void> {
    this.#record = { ...this.#record, generations: changes.generations ?? [] };
    await this.savePending();
    await this.save({ ...changes, state: 'complete', torn: false });
    if (this.unpublished === undefined) return;
    this.unpublished = undefined;
    await this.savePending();
  }

  /** Forgets all that is known of the target: the whole device is pending, and no fingerprint counts. Durable. */
  async reset(targetSize: number): Promise<void> {
    this.pending.fill(true);
    this.unconfirmed = undefined;
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

  /** Sets all fingerprints to "not known", durably. */
  async forgetFingerprints(): Promise<void> {
    // In place, because the copying threads have the file open.
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

/** Suffix of the folder of a chain that has not been adopted yet. */
const beside = '.new';

/** Returns the name of the chain's folder: stable for a device and a target. */
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

/** Returns undefined if this version did not write the text. */
function parseRecord(text: string): ChainRecord | undefined {
  try {
    const record = JSON.parse(text) as Partial<ChainRecord>;
    const known = record.version === recordVersion && /^[0-9a-f]{64}$/.test(record.key ?? '');
    return known ? (record as ChainRecord) : undefined;
  } catch {
    return undefined;
  }
}
