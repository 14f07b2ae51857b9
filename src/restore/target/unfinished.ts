/**
 * The record of an unfinished restore. With it, the same command can continue although the destination is no longer empty.
 * The record keeps the digests of the restored ranges. If one of these ranges differs, the destination was used for
 * something else in the meantime, and the restore is refused. No other progress is kept: the next run compares the data.
 *
 * `KEY.json` names destination and image. `KEY.ranges` has a record of 32 bytes for each range (written-ranges.ts). A record
 * is added after its range is restored, so ranges that were in progress at an interruption have none. The files need not be
 * durable: device numbers may mean other disks after a reboot, so the record is not valid then.
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { createHash } from 'node:crypto';
import { type FileHandle, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pLimit from 'p-limit';
import { MiB } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import { makeDirectory, writingAsync } from '../../base/files.ts';
import type { ReadAt } from '../../block/source.ts';
import { readBlockDevices } from '../../linux/sysfs.ts';
import { splitDeviceNumber } from '../../linux/device-uses.ts';
import { bootId } from '../../linux/process.ts';
import { formatNbdUri } from '../../nbd/client/uri.ts';
import type { DestinationName } from './destination-name.ts';
import { decodeRange, encodeRange, recordBytes } from './written-ranges.ts';

/** The most ranges to record, which take 32 MiB of the state directory. They are proof enough. */
const mostRanges = 2 ** 20;
const pieceBytes = MiB;

export interface CheckedRanges {
  /** The first range that differs from the restored data; undefined if all are equal. */
  readonly differs: Extent | undefined;
  readonly ranges: number;
}

export class UnfinishedRestore {
  readonly #directory: string | undefined;
  readonly #name: DestinationName;
  readonly #image: string;
  #begun: string | undefined;
  #log: FileHandle | undefined;
  #logged = 0;
  /** Records are added one after the other. */
  readonly #inTurn = pLimit(1);

  /** `image` identifies the image. Without a directory, nothing is recorded. */
  constructor(directory: string | undefined, name: DestinationName, image: string) {
    this.#directory = directory;
    this.#name = name;
    this.#image = image;
  }

  /** Whether the same restore was begun before and did not succeed. */
  async wasBegun(): Promise<boolean> {
    if (this.#directory === undefined) return false;
    const { path, text } = await this.#record(this.#directory);
    return (await readFile(`${path}.json`, 'utf8').catch(() => undefined)) === text;
  }

  /**
   * Compares the destination with the recorded ranges. `onRead` gets the bytes read so far and the total. Throws the errors
   * of reading, and the reason of `signal`.
   */
  async check(
    readAt: ReadAt,
    signal?: AbortSignal,
    onRead?: (done: number, total: number) => void,
  ): Promise<CheckedRanges> {
    const ranges = await this.#ranges();
    const total = ranges.reduce((sum, { length }) => sum + length, 0);
    let done = 0;
    for (const { offset, length, digest } of ranges) {
      const hasher = new Blake3Hasher();
      for (let at = offset; at < offset + length; at += pieceBytes) {
        signal?.throwIfAborted();
        const bytes = Math.min(pieceBytes, offset + length - at);
        hasher.update(Buffer.from(await readAt(at, bytes)));
        onRead?.((done += bytes), total);
      }
      if (!hasher.digestBuffer().subarray(0, digest.length).equals(digest))
        return { differs: { offset, length }, ranges: ranges.length };
    }
    return { differs: undefined, ranges: ranges.length };
  }

  /** Starts the record. The destination must exist. `fresh`: ignore the record of an interrupted restore. */
  async begin(fresh: boolean): Promise<void> {
    if (this.#directory === undefined) return;
    const { path, text } = await this.#record(this.#directory);
    await makeDirectory(this.#directory);
    if (fresh) await rm(`${path}.ranges`, { force: true });
    this.#logged = fresh ? 0 : (await this.#ranges()).length;
    this.#log = await writingAsync(`${path}.ranges`, () => open(`${path}.ranges`, 'a', 0o600));
    await writingAsync(`${path}.json`, () => writeFile(`${path}.json`, text, { mode: 0o600 }));
    this.#begun = path;
  }

  /** Records a restored range with its digest. Ignores a full state directory: then the next run needs `--force`. */
  add(range: Extent, digest: Uint8Array): void {
    const log = this.#log;
    if (log === undefined || this.#logged++ >= mostRanges) return;
    const record = encodeRange(range, digest);
    void this.#inTurn(() => log.appendFile(record)).catch(() => undefined);
  }

  /** Closes the record and keeps it. */
  async pause(): Promise<void> {
    // Resolves after all records that were added before.
    await this.#inTurn(() => undefined);
    await this.#log?.close();
    this.#log = undefined;
  }

  async finish(): Promise<void> {
    await this.pause();
    if (this.#begun === undefined) return;
    await rm(`${this.#begun}.json`, { force: true });
    await rm(`${this.#begun}.ranges`, { force: true });
  }

  /** Returns the recorded ranges by offset. If a range was restored twice, the last record counts. */
  async #ranges(): Promise<(Extent & { readonly digest: Buffer })[]> {
    if (this.#directory === undefined) return [];
    const { path } = await this.#record(this.#directory);
    const data = await readFile(`${path}.ranges`).catch(() => Buffer.alloc(0));
    const last = new Map<string, Extent & { readonly digest: Buffer }>();
    for (let at = 0; at + recordBytes <= data.length; at += recordBytes) {
      const range = decodeRange(data, at);
      last.set(`${range.offset} ${range.length}`, range);
    }
    return [...last.values()].sort((a, b) => a.offset - b.offset);
  }

  /** Returns the path of the two files without its extension, and the text of `KEY.json`. */
  async #record(directory: string): Promise<{ path: string; text: string }> {
    const text = JSON.stringify({ destination: await identify(this.#name), image: this.#image });
    const key = createHash('sha256').update(text).digest('hex').slice(0, 32);
    return { path: join(directory, key), text };
  }
}

/**
 * Returns a text that identifies a destination. Device numbers, paths and addresses can mean something else later. So the
 * text names the boot, for a disk also its attachment (disk sequence), and for a file its inode.
 */
async function identify(name: DestinationName): Promise<string> {
  if (name.kind === 'nbd') return `${formatNbdUri(name.address)} ${await bootId()}`;
  const node = await stat(name.path).catch(() => undefined);
  if (node?.isBlockDevice() !== true)
    return `${name.path} ${node?.dev ?? 0}:${node?.ino ?? 0} ${await bootId()}`;
  const { major, minor } = splitDeviceNumber(node.rdev);
  const device = (await readBlockDevices()).find((each) => each.major === major && each.minor === minor);
  return `${name.path} ${major}:${minor} ${device?.diskSequence ?? 0} ${device?.size ?? 0} ${await bootId()}`;
}
