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
  readonly #directory: string | undefined;
  readonly #name: DestinationName;
  readonly #image: string;
  #begun: string | undefined;

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
    return (await readFile(path, 'utf8').catch(() => undefined)) === text;
  }

  /** To be called when the destination is there. */
  async begin(): Promise<void> {
    if (this.#directory === undefined) return;
    const { path, text } = await this.#record(this.#directory);
    await mkdir(this.#directory, { recursive: true, mode: 0o700 });
    await writeFile(path, text, { mode: 0o600 });
    this.#begun = path;
  }

  async finish(): Promise<void> {
    if (this.#begun !== undefined) await rm(this.#begun, { force: true });
  }

  async #record(directory: string): Promise<{ path: string; text: string }> {
    const text = JSON.stringify({ destination: await identify(this.#name), image: this.#image });
    const key = createHash('sha256').update(text).digest('hex').slice(0, 32);
    return { path: join(directory, `${key}.json`), text };
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
