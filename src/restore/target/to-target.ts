/**
 * Restores an image to a block device, an image file or an NBD export. Several threads compare the image with the
 * destination and write the differences. Then the data is made durable, and everything that was written is read back and
 * compared. After an interruption, the next run skips the finished part by comparing it.
 *
 * The order of writes does not matter: the destination is valid only at the end.
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
import { isDataLossError } from '../../vault/data-loss.ts';
import { type ImageReader, readAtOf } from '../image/image-reader.ts';
import { type ImageSpec, openImage, placeOfImage } from '../image/open-image.ts';
import { type AcquireOptions, type HeldDestination, acquireDestination } from './acquire-destination.ts';
import type { DestinationName } from './destination-name.ts';
import { ComparePolicy, type CompareMode } from './compare-policy.ts';
import type { JobResult, Lost } from './thread-messages.ts';
import { type PlannedJob, planRestore } from './plan.ts';
import { sectorNeed } from './sectors.ts';
import { ThreadPool } from './pool.ts';
import { UnfinishedRestore } from './unfinished.ts';
import { WrittenRanges } from './written-ranges.ts';

export interface RestoreProgress {
  readonly phase: 'checking' | 'restoring' | 'verifying' | 'finishing';
  /** Bytes of the image's data that were restored or read back, and the total if it is known. */
  readonly done: number;
  readonly total: number | undefined;
  readonly written: number;
  /** Average of this phase in bytes per second. */
  readonly rate: number;
}

export interface RestoreOptions extends Pick<AcquireOptions, 'force' | 'signal' | 'topology'> {
  readonly image: ImageSpec;
  /** Identifies the image, for example by point and device. Needed to resume. */
  readonly imageId: string;
  /** Sector size of the device that was backed up, bytes. */
  readonly sectorSize: number;
  /** Bytes of data in the image, for progress. */
  readonly usedBytes?: number | undefined;
  readonly to: DestinationName;
  /** Directory of the records of interrupted restores. Without it, a second run needs `force`. */
  readonly unfinishedDirectory?: string | undefined;
  /** Default `auto`: reads the destination first as long as that saves writes. */
  readonly compare?: CompareMode;
  /** Zeroes all unused ranges, also if zeros must be written. */
  readonly zeroUnused?: boolean;
  /** Restores zeros for data that the vault has lost. */
  readonly salvage?: boolean;
  /** Default true. */
  readonly verify?: boolean;
  readonly threads?: number;
  readonly onProgress?: (progress: RestoreProgress) => void;
}

/** The result of a restore. Numbers are bytes, unless stated otherwise. */
export interface RestoreResult {
  readonly destination: string;
  readonly size: number;
  readonly written: number;
  /** Equal already, so not written. */
  readonly equal: number;
  /** Zeroed by a function of the destination. */
  readonly zeroed: number;
  /** Not in use by the filesystem, so left unchanged. */
  readonly left: number;
  /** Read back and compared. */
  readonly verified: number;
  readonly lost: readonly Lost[];
  readonly warnings: readonly string[];
  /** The partition table was adapted to a larger disk. */
  readonly tableMoved: boolean;
  /** Whether the kernel has read the new partition table. Undefined if there is none. */
  readonly partitionsReread: boolean | undefined;
  readonly seconds: number;
}

/** Throws TARGET_MISMATCH, CANCELLED, the errors of `acquireDestination`, and those of targets and vaults. */
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
    const held = await acquireDestination(
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

/** Length of the beginning of a destination, which has the signatures of filesystems, volume managers and partition tables. */
const headBytes = MiB;
/** An interrupted write ends at a sector. */
const tornUnit = 512;

/**
 * Whether the beginning of the destination can come from a restore that was interrupted before its first record. The
 * destination was empty then, so each sector is either zero or equal to the image.
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

/** Image cache of a thread. Each chunk is used once, so only the data that is read ahead must fit. */
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
    // Two threads keep a disk busy; each further one takes about 80 MiB (docs/benchmarks.md).
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
    // The beginning is restored and recorded first. Any other use of the destination (mkfs, a partition table) changes it,
    // so the next run can detect that use.
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
      // With `salvage`, the restored beginning is not known exactly, so it is not recorded.
      if (isDataLossError(error)) return;
      throw error;
    }
    const digest = new Blake3Hasher().update(head).digestBuffer();
    this.#unfinished.add({ offset: 0, length: head.length }, digest);
  }

  /** Tests whether the destination can zero quickly. If not, returns the ranges that the filesystem in the image uses. */
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
        `the unused ranges are not known, so all zeros are compared and written: ${marked.warnings.join('; ')}`,
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
          `${name}: the data read back from byte ${offset} to ${offset + length} differs from the data written there`,
          {
            hint: 'check the disk (dmesg, smartctl) and whether another program writes to it; restore to another disk',
          },
        );
      verified += length;
      progress(length);
    });
    return verified;
  }

  /** Adapts a GPT to a larger disk. Reads the table of the image, which is the same as that of the destination. */
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

/** Returns the first range that the image does not hold, at most 1 MiB. */
async function firstGap(image: ImageReader): Promise<{ offset: number; length: number } | undefined> {
  let end = 0;
  for await (const extent of image.extents()) {
    if (extent.offset > end) return { offset: end, length: Math.min(MiB, extent.offset - end) };
    end = extent.offset + extent.length;
  }
  return end < image.size ? { offset: end, length: Math.min(MiB, image.size - end) } : undefined;
}

/** Returns false if the kernel keeps the old partitions. Retries, since udev may hold the device for a moment. */
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
