/**
 * Remembers a restore that was begun and not finished, so that running the same command again continues although the
 * destination is not empty any more. Permission rests on the content of the destination: the digests of the ranges that
 * were restored are kept, and if anything of them differs, the destination was used for something else in the meantime.
 * No progress is kept otherwise: what is there already is compared.
 *
 * `KEY.json` names destination and image, `KEY.ranges` holds a record of 32 bytes a range (written-ranges.ts). A record is
 * added when its range is restored, so ranges that were under way at the end are in none. Neither is made durable: after a
 * reboot device numbers may mean other disks, and nothing is remembered.
 */
import { Blake3Hasher } from '@napi-rs/blake-hash';
import { createHash } from 'node:crypto';
import { type FileHandle, mkdir, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../base/bytes.ts';
import type { Extent } from '../../base/extents.ts';
import type { ReadAt } from '../../block/source.ts';
import { readBlockDevices } from '../../linux/sysfs.ts';
import { splitDeviceNumber } from '../../linux/usage.ts';
import { bootId } from '../../linux/process.ts';
import { formatNbdUri } from '../../nbd/client/uri.ts';
import type { DestinationName } from './destination-name.ts';
import { decodeRange, encodeRange, recordBytes } from './written-ranges.ts';

/** So many ranges prove enough; more would take more than 32 MiB of the state directory. */
const mostRanges = 2 ** 20;
const pieceBytes = MiB;

export interface CheckedRanges {
  /** The first range that is not what was restored there; undefined if all are. */
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
  #turn: Promise<unknown> = Promise.resolve();

  /** `image` tells the image from all others. Without a directory nothing is remembered. */
  constructor(directory: string | undefined, name: DestinationName, image: string) {
    this.#directory = directory;
    this.#name = name;
    this.#image = image;
  }

  /** This very restore was begun before, and has not ended well. */
  async wasBegun(): Promise<boolean> {
    if (this.#directory === undefined) return false;
    const { path, text } = await this.#record(this.#directory);
    return (await readFile(`${path}.json`, 'utf8').catch(() => undefined)) === text;
  }

  /**
   * Reads what the interrupted restore has restored, and compares. `onRead` gets the bytes read so far and of how many.
   * Throws what reading throws, and what `signal` was aborted with.
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

  /** To be called when the destination is there. `anew`: what an interrupted restore has left of it does not count. */
  async begin(anew: boolean): Promise<void> {
    if (this.#directory === undefined) return;
    const { path, text } = await this.#record(this.#directory);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    if (anew) await rm(`${path}.ranges`, { force: true });
    this.#logged = anew ? 0 : (await this.#ranges()).length;
    this.#log = await open(`${path}.ranges`, 'a', 0o600);
    await writeFile(`${path}.json`, text, { mode: 0o600 });
    this.#begun = path;
  }

  /** A range is restored; `digest` of all of it. A full state directory only means that a restart needs `--force`. */
  add(range: Extent, digest: Uint8Array): void {
    const log = this.#log;
    if (log === undefined || this.#logged++ >= mostRanges) return;
    const record = encodeRange(range, digest);
    this.#turn = this.#turn.then(() => log.appendFile(record)).catch(() => undefined);
  }

  /** Lets go of the record, which stays. */
  async pause(): Promise<void> {
    await this.#turn;
    await this.#log?.close();
    this.#log = undefined;
  }

  async finish(): Promise<void> {
    await this.pause();
    if (this.#begun === undefined) return;
    await rm(`${this.#begun}.json`, { force: true });
    await rm(`${this.#begun}.ranges`, { force: true });
  }

  /** By offset; of a range that was restored twice, as it was the last time. */
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

  /** Paths without their ends. */
  async #record(directory: string): Promise<{ path: string; text: string }> {
    const text = JSON.stringify({ destination: await identify(this.#name), image: this.#image });
    const key = createHash('sha256').update(text).digest('hex').slice(0, 32);
    return { path: join(directory, key), text };
  }
}

/**
 * Numbers of devices are given anew, and behind a path or an address may be something else later: all of it means the
 * same within one boot alone, a disk within one attachment, and a file while it is the same one.
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
