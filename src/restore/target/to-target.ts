/**
 * Restores an image to a block device, an image file or an NBD export: what is there is compared and what differs is
 * written, by several threads; then it is made durable, and everything that was written is read back and compared. Run
 * again after a cut it compares its way to where it was.
 *
 * The order of writes does not matter: nothing about the destination is true before the end.
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { Bitmap } from '../../base/bitmap.ts';
import { KiB, MiB, isZero } from '../../base/bytes.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { setTimeout as sleep } from 'node:timers/promises';
import { open } from 'node:fs/promises';
import { moveGptBackup } from '../../filesystems/disk/gpt-move.ts';
import { readPartitionTable } from '../../filesystems/disk/partition-table.ts';
import type { ReadAt } from '../../block/source.ts';
import { markUsed } from '../../filesystems/mark-used.ts';
import { probe } from '../../filesystems/probe.ts';
import { rereadPartitions } from '../../linux/ioctl.ts';
import { isLoss } from '../../vault/loss.ts';
import { type ImageReader, readAtOf } from '../image/image-reader.ts';
import { type ImageSpec, openImage, placeOfImage } from '../image/open-image.ts';
import { type CheckOptions, type HeldDestination, holdDestination } from './check.ts';
import type { DestinationName } from './destination-name.ts';
import { ComparePolicy, type CompareMode } from './compare-policy.ts';
import type { JobResult, Lost } from './messages.ts';
import { type PlannedJob, planRestore } from './plan.ts';
import { sectorNeed } from './sectors.ts';
import { ThreadPool } from './pool.ts';
import { UnfinishedRestore } from './unfinished.ts';
import { WrittenRanges } from './written-ranges.ts';

export interface RestoreProgress {
  readonly phase: 'checking' | 'restoring' | 'verifying' | 'finishing';
  /** Bytes of the image's data that were dealt with, or read back; and of how many, where that is known. */
  readonly done: number;
  readonly total: number | undefined;
  readonly written: number;
  /** Bytes per second of this phase so far. */
  readonly rate: number;
}

export interface RestoreOptions extends Pick<CheckOptions, 'force' | 'signal' | 'topology'> {
  readonly image: ImageSpec;
  /** Tells the image from others, such as point and device; for resuming. */
  readonly imageId: string;
  /** Of the device that the image was taken of, bytes. */
  readonly sectorSize: number;
  /** Bytes of data in the image, for progress. */
  readonly usedBytes?: number | undefined;
  readonly to: DestinationName;
  /** Where restores that were cut are remembered; without it they need `force` again. */
  readonly unfinishedDirectory?: string | undefined;
  /** Default `auto`: reads what is there as long as that saves writing. */
  readonly compare?: CompareMode;
  /** Makes everything unused zero, also where zeros have to be written. */
  readonly zeroUnused?: boolean;
  /** What the vault has lost becomes zeros, and the rest is restored. */
  readonly salvage?: boolean;
  /** Default true. */
  readonly verify?: boolean;
  readonly threads?: number;
  readonly onProgress?: (progress: RestoreProgress) => void;
}

/** Bytes, but for what says otherwise. */
export interface RestoreResult {
  readonly destination: string;
  readonly size: number;
  readonly written: number;
  /** Found equal, and not written. */
  readonly equal: number;
  /** Made zero by the destination's own means. */
  readonly zeroed: number;
  /** Not in use by the filesystem, and left as it was. */
  readonly left: number;
  /** Read back and compared. */
  readonly verified: number;
  readonly lost: readonly Lost[];
  readonly warnings: readonly string[];
  /** The partition table was fitted to a larger disk. */
  readonly tableMoved: boolean;
  /** Undefined where there are none to read. */
  readonly partitionsReread: boolean | undefined;
  readonly seconds: number;
}

/** Throws what the check throws (see `holdDestination`), the errors of targets and vaults, TARGET_MISMATCH, CANCELLED. */
export async function restoreToTarget(options: RestoreOptions): Promise<RestoreResult> {
  const { signal, to } = options;
  signal?.throwIfAborted();
  const started = performance.now();
  options.onProgress?.({ phase: 'checking', done: 0, total: undefined, written: 0, rate: 0 });
  const image = await openImage(options.image, { cacheBytes: 4 * MiB, signal });
  try {
    const readAt = readAtOf(image);
    const table = await readPartitionTable(readAt, image.size, options.sectorSize);
    const filesystem = table === undefined ? await probe(readAt, image.size) : undefined;
    const unfinished = new UnfinishedRestore(options.unfinishedDirectory, to, options.imageId);
    const onRead = (done: number, total: number): void => {
      const rate = (done * 1000) / Math.max(1, performance.now() - started);
      options.onProgress?.({ phase: 'checking', done, total, written: 0, rate });
    };
    const resume = (await unfinished.wasBegun())
      ? async (destination: ReadAt) => {
          const found = await unfinished.check(destination, signal, onRead);
          const isOurs = found.ranges > 0 || (await isHeadBegun(destination, image));
          return { ...found, nothingRecorded: !isOurs };
        }
      : undefined;
    const held = await holdDestination(
      to,
      {
        size: image.size,
        sectorSize: options.sectorSize,
        partitioned: table !== undefined && table.partitions.length > 0,
        sectors: await sectorNeed(readAt, filesystem),
        place: placeOfImage(options.image),
      },
      { ...options, resume },
    );
    let result: Omit<RestoreResult, 'partitionsReread' | 'seconds'>;
    try {
      await unfinished.begin(resume === undefined || options.force !== undefined);
      result = await new Restore(options, image, held, unfinished).run();
    } finally {
      await unfinished.pause();
      await held.release();
    }
    await unfinished.finish();
    const partitionsReread = held.isDisk && table !== undefined ? await reread(held.name) : undefined;
    return { ...result, partitionsReread, seconds: (performance.now() - started) / 1000 };
  } finally {
    await image.close();
  }
}

/** The beginning of a destination, where filesystems, volume managers and partition tables have their signatures. */
const headBytes = MiB;
/** Writes that were under way are torn at sectors. */
const tornUnit = 512;

/**
 * Interrupted before anything was recorded: the beginning of the destination, which was empty, holds nothing but zeros and
 * what the image has there.
 */
async function isHeadBegun(destination: ReadAt, image: ImageReader): Promise<boolean> {
  const length = Math.min(headBytes, image.size);
  const there = Buffer.from(await destination(0, length));
  const wanted = await image.read(0, length);
  for (let at = 0; at < length; at += tornUnit) {
    const unit = there.subarray(at, at + tornUnit);
    if (!isZero(unit) && !unit.equals(wanted.subarray(at, at + tornUnit))) return false;
  }
  return true;
}

/** Chunks are used once; what is read ahead has to fit. */
const threadCacheBytes = 12 * MiB;

class Restore {
  readonly #options: RestoreOptions;
  readonly #image: ImageReader;
  readonly #held: HeldDestination;
  readonly #unfinished: UnfinishedRestore;
  readonly #written = new WrittenRanges();
  readonly #warnings: string[] = [];
  readonly #lost: Lost[] = [];
  readonly #compare: ComparePolicy;
  readonly #sums = { written: 0, equal: 0, zeroed: 0, left: 0 };

  constructor(
    options: RestoreOptions,
    image: ImageReader,
    held: HeldDestination,
    unfinished: UnfinishedRestore,
  ) {
    this.#unfinished = unfinished;
    this.#options = options;
    this.#image = image;
    this.#held = held;
    this.#compare = new ComparePolicy(held.fresh ? 'never' : (options.compare ?? 'auto'));
  }

  async run(): Promise<Omit<RestoreResult, 'partitionsReread' | 'seconds'>> {
    const { signal, image, verify = true } = this.#options;
    // Two keep a disk busy; each more costs some 80 MiB (docs/benchmarks.md).
    const threads = this.#options.threads ?? 2;
    const pool = await ThreadPool.start({
      image,
      destination: this.#held.spec,
      threads: this.#held.parallel ? threads : 1,
      lanes: 3,
      cacheBytes: threadCacheBytes,
      signal,
    });
    try {
      await this.#restore(pool);
      await pool.each({ do: 'flush' });
      const verified = verify ? await this.#verify(pool) : 0;
      const tableMoved = await this.#moveTable(pool);
      return {
        destination: this.#held.name,
        size: this.#image.size,
        ...this.#sums,
        verified,
        lost: this.#lost.sort((a, b) => a.offset - b.offset),
        warnings: this.#warnings,
        tableMoved,
      };
    } finally {
      await pool.close();
    }
  }

  async #restore(pool: ThreadPool): Promise<void> {
    const { size } = this.#image;
    const zeros = this.#held.fresh ? 'none' : await this.#zerosFor(pool);
    const plan = planRestore(this.#image.extents(), {
      size,
      destinationSize: this.#held.size,
      zeros,
      salvage: this.#options.salvage ?? false,
      compare: () => this.#compare.next(),
    });
    const progress = this.#progress('restoring', this.#options.usedBytes);
    const done = (job: PlannedJob, result: JobResult): void => {
      this.#count(job, result);
      if (job.do === 'copy') {
        this.#compare.learn(job.compare, result.equal ?? 0);
        progress(job.length);
      } else progress(0);
    };
    // The beginning by itself, so that an interrupted restore always knows it again: whoever uses the destination for
    // something else (mkfs, a partition table) changes it.
    for (let next = await plan.next(); next.done !== true; next = await plan.next()) {
      await pool.run([next.value], done);
      if (next.value.offset + next.value.length >= Math.min(headBytes, size)) break;
    }
    await this.#rememberHead();
    await pool.run<PlannedJob>(plan, done);
  }

  async #rememberHead(): Promise<void> {
    const head = Buffer.alloc(Math.min(headBytes, this.#image.size));
    try {
      await this.#image.readInto(head, 0);
    } catch (error) {
      // With `salvage` it is not known what is there.
      if (isLoss(error)) return;
      throw error;
    }
    const digest = new Blake3Hasher().update(head).digestBuffer();
    this.#unfinished.add({ offset: 0, length: head.length }, digest);
  }

  /** Tries how the destination zeros; where that would mean writing, the filesystem says what has to be zero. */
  async #zerosFor(pool: ThreadPool): Promise<'quick' | Bitmap> {
    const { size } = this.#image;
    const gap = await firstGap(this.#image);
    if (gap === undefined) return 'quick';
    const { left = 0 } = await pool.one({ do: 'zero', ...gap, must: false });
    if (left === 0) return 'quick';
    const used = new Bitmap(size, 64 * KiB);
    if (this.#options.zeroUnused === true) {
      used.fill(true);
      return used;
    }
    const { signal } = this.#options;
    const marked = await markUsed(used, readAtOf(this.#image), size, this.#options.sectorSize, {
      ...(signal === undefined ? {} : { signal }),
    });
    if (marked.everything)
      this.#warnings.push(
        `everything that reads as zeros is compared and written, since it cannot be told from what is unused: ${marked.warnings.join('; ')}`,
      );
    return used;
  }

  #count(job: PlannedJob, result: JobResult): void {
    const { written = 0, equal = 0, zeroed = 0, left = 0, lost = [], digest } = result;
    this.#sums.written += written;
    this.#sums.equal += equal;
    this.#sums.zeroed += zeroed;
    this.#sums.left += left;
    this.#lost.push(...lost);
    if (digest === undefined) return;
    this.#unfinished.add(job, digest);
    if (written > 0) this.#written.add(job, digest);
  }

  async #verify(pool: ThreadPool): Promise<number> {
    const progress = this.#progress('verifying', this.#written.bytes);
    const { name } = this.#held;
    let verified = 0;
    await pool.run(this.#written.jobs(), ({ offset, length }, { differs }) => {
      if (differs === true)
        throw new AgentError(
          'TARGET_MISMATCH',
          `${name}: what is read back between byte ${offset} and ${offset + length} is not what was written there`,
          {
            hint: 'do not trust this disk (see dmesg and smartctl), or see who else writes to it; restore elsewhere',
          },
        );
      verified += length;
      progress(length);
    });
    return verified;
  }

  /** Reads the image's table, and not the destination's, which says the same. */
  async #moveTable(pool: ThreadPool): Promise<boolean> {
    const { size } = this.#held;
    const move = await moveGptBackup(readAtOf(this.#image), this.#image.size, size, this.#options.sectorSize);
    if (move === undefined) return false;
    this.#warnings.push(...move.warnings);
    this.#progress('finishing', undefined)(0);
    for (const { offset, data } of move.writes) {
      await pool.one({ do: 'write', offset, data });
      await pool.each({ do: 'flush' });
    }
    return move.writes.length > 0;
  }

  #progress(phase: RestoreProgress['phase'], total: number | undefined): (bytes: number) => void {
    const started = performance.now();
    let done = 0;
    return (bytes) => {
      done += bytes;
      const seconds = Math.max(0.001, (performance.now() - started) / 1000);
      const { written } = this.#sums;
      this.#options.onProgress?.({ phase, done, total, written, rate: done / seconds });
    };
  }
}

/** Something that the image does not hold, up to 1 MiB of it. */
async function firstGap(image: ImageReader): Promise<{ offset: number; length: number } | undefined> {
  let end = 0;
  for await (const extent of image.extents()) {
    if (extent.offset > end) return { offset: end, length: Math.min(MiB, extent.offset - end) };
    end = extent.offset + extent.length;
  }
  return end < image.size ? { offset: end, length: Math.min(MiB, image.size - end) } : undefined;
}

/** False where the kernel goes on with the old ones. Whoever looks at new devices (udev) may hold it for a moment. */
async function reread(path: string): Promise<boolean> {
  for (let attempt = 0; attempt < 20; attempt++) {
    const handle = await open(path, 'r');
    try {
      await rereadPartitions(handle.fd);
      return true;
    } catch (error) {
      if (errnoCode(error) !== 'EBUSY') return false;
    } finally {
      await handle.close();
    }
    await sleep(100);
  }
  return false;
}
