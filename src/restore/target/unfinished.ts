/**
 * Remembers a restore that was begun and not finished, so that running the same command again goes on although the
 * destination is not empty any more. No progress is kept: what is there already is compared, which is quick.
 */
import { createHash } from 'node:crypto';
import { mkdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { readBlockDevices } from '../../linux/sysfs.ts';
import { splitDeviceNumber } from '../../linux/usage.ts';
import { bootId } from '../../linux/process.ts';
import { formatNbdUri } from '../../nbd/client/uri.ts';
import type { DestinationName } from './check.ts';

export class UnfinishedRestore {
  readonly #path: string | undefined;
  readonly #text: string;

  private constructor(path: string | undefined, text: string) {
    this.#path = path;
    this.#text = text;
  }

  /** `image` tells the image from all others. Without a directory nothing is remembered. */
  static async of(
    directory: string | undefined,
    name: DestinationName,
    image: string,
  ): Promise<UnfinishedRestore> {
    const destination = await identify(name);
    const text = JSON.stringify({ destination, image });
    const key = createHash('sha256').update(text).digest('hex').slice(0, 32);
    return new UnfinishedRestore(directory && join(directory, `${key}.json`), text);
  }

  /** This very restore was begun before, and has not ended well. */
  async wasBegun(): Promise<boolean> {
    if (this.#path === undefined) return false;
    return (await readFile(this.#path, 'utf8').catch(() => undefined)) === this.#text;
  }

  async begin(): Promise<void> {
    if (this.#path === undefined) return;
    await mkdir(join(this.#path, '..'), { recursive: true, mode: 0o700 });
    await writeFile(this.#path, this.#text, { mode: 0o600 });
  }

  async finish(): Promise<void> {
    if (this.#path !== undefined) await rm(this.#path, { force: true });
  }
}

/** Numbers of devices are given anew: only within one boot and one attachment do they mean the same disk. */
async function identify(name: DestinationName): Promise<string> {
  if (name.kind === 'nbd') return formatNbdUri(name.address);
  const node = await stat(name.path).catch(() => undefined);
  if (node?.isBlockDevice() !== true) return name.path;
  const { major, minor } = splitDeviceNumber(node.rdev);
  const device = (await readBlockDevices()).find((each) => each.major === major && each.minor === minor);
  return `${name.path} ${major}:${minor} ${device?.diskSequence ?? 0} ${device?.size ?? 0} ${await bootId()}`;
}
