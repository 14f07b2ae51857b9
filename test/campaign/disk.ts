/**
 * A device of a random history: a loop device over a sparse file in memory. A history mounts it, writes to
 * it, formats it and makes it grow. `copy` makes a copy of the whole device past the page cache, for the
 * judge.
 */
import { mkdir, open, readdir, rename, rm, symlink, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { foreignHeaders } from '../helpers/foreign-signatures.ts';
import { makeFilesystem, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { seeded } from '../helpers/random.ts';

export type Filesystem = 'ext4' | 'xfs';
export type Mounted = 'rw' | 'ro' | 'no';
export type DiskName = 'a' | 'b';

/** Bytes. mkfs.xfs makes so small a filesystem only with an extra option. */
export const firstSize = 48 * MiB;
const growth = 8 * MiB;
const largestSize = 72 * MiB;

export class Disk {
  readonly name: DiskName;
  readonly device: string;
  readonly image: string;
  readonly mountPoint: string;
  size = firstSize;
  /** `other`: every block counts, even if there is a superblock. */
  content: Filesystem | 'other' = 'other';
  mounted: Mounted = 'no';

  private constructor(name: DiskName, made: { device: string; image: string; directory: string }) {
    this.name = name;
    this.device = made.device;
    this.image = made.image;
    this.mountPoint = join(made.directory, 'mnt');
  }

  static async make(t: EndingTest, name: DiskName, directory: string): Promise<Disk> {
    const disk = new Disk(name, await makeLoop(t, { size: firstSize, directory }));
    atEnd(t, () => disk.unmount());
    return disk;
  }

  /** Resets the disk as at the beginning of a history: empty, and with its first size. */
  async clear(): Promise<void> {
    await this.unmount();
    if (this.size !== firstSize) await this.#resize(firstSize);
    await exec('blkdiscard', ['-f', this.device]);
    this.content = 'other';
  }

  /** Makes a filesystem. `uuid`: its UUID, which another disk may also have. */
  async format(type: Filesystem, uuid?: string): Promise<void> {
    const tiny = type === 'xfs' ? ['--unsupported'] : [];
    const named = uuid === undefined ? [] : type === 'xfs' ? ['-m', `uuid=${uuid}`] : ['-U', uuid];
    await makeFilesystem(this.device, type, [...tiny, ...named]);
    this.content = type;
  }

  async mount(how: 'rw' | 'ro'): Promise<void> {
    const options = this.content === 'xfs' ? `${how},nouuid` : how;
    await mountDevice(this.device, this.mountPoint, options);
    this.mounted = how;
  }

  async remount(how: 'rw' | 'ro'): Promise<void> {
    await exec('mount', ['-o', `remount,${how}`, this.mountPoint]);
    this.mounted = how;
  }

  async unmount(): Promise<void> {
    if (this.mounted !== 'no') await unmount(this.mountPoint);
    this.mounted = 'no';
  }

  /** Grows the device alone, or also the mounted filesystem. */
  async grow(withFilesystem: boolean): Promise<void> {
    await this.#resize(this.size + growth);
    if (!withFilesystem || this.mounted !== 'rw') return;
    // They fail while the filesystem is frozen, and if a raw write has damaged it.
    if (this.content === 'xfs') await exec('xfs_growfs', [this.mountPoint], { allow: [1] });
    else await exec('resize2fs', [this.device], { allow: [1] });
  }

  get mayGrow(): boolean {
    return this.size + growth <= largestSize;
  }

  async #resize(size: number): Promise<void> {
    await truncate(this.image, size);
    await exec('losetup', ['--set-capacity', this.device]);
    this.size = size;
  }

  /** Writes only to the superblock: a label, and another UUID if the filesystem is not mounted. */
  async tune(seed: number): Promise<void> {
    const label = `label${seed % 100}`;
    if (this.content === 'ext4')
      await exec('tune2fs', [
        ...['-L', label],
        ...(this.mounted === 'no' && seed % 2 === 0 ? ['-f', '-U', 'random'] : []),
        this.device,
      ]);
    else if (this.mounted === 'no') await exec('xfs_admin', ['-L', label, this.device]);
    else if (this.mounted === 'rw') await exec('xfs_io', ['-c', `label -s ${label}`, this.mountPoint]);
  }

  /** Makes, overwrites, truncates, deletes and renames files, and punches holes, as the seed decides. */
  async writeFiles(seed: number, sync: boolean): Promise<void> {
    const random = seeded(seed);
    const below = (most: number): number => Math.floor(random() * most);
    for (let count = 2 + below(5); count > 0; count--) await this.#writeFile(below);
    if (sync) await exec('sync', ['--file-system', this.mountPoint]);
  }

  async #writeFile(below: (most: number) => number): Promise<void> {
    const place = join(this.mountPoint, `f${below(8)}`);
    const data = randomBytes(below, below(3) === 0 ? below(2 * MiB) : below(64 * KiB));
    try {
      switch (below(8)) {
        case 0:
          await rm(place, { force: true, recursive: true });
          break;
        case 1:
          await truncate(place, below(96) * KiB);
          break;
        case 2:
          await mkdir(join(this.mountPoint, `d${below(3)}`), { recursive: true });
          await writeFile(join(this.mountPoint, `d${below(3)}`, `f${below(6)}`), data);
          break;
        case 3:
          await rename(place, join(this.mountPoint, `f${below(8)}`));
          break;
        case 4:
          await exec('fallocate', ['--punch-hole', '--offset', '4096', '--length', '16384', place]);
          break;
        case 5:
          await symlink('x'.repeat(1 + below(200)), join(this.mountPoint, `l${below(20)}`));
          break;
        default:
          await writePart(place, { flags: below(2) === 0 ? 'a+' : 'w+', data, at: below(64) * 4096 });
      }
    } catch {
      // A missing file cannot be truncated, renamed or punched, and a small disk may be full.
    }
  }

  async trim(): Promise<void> {
    await exec('fstrim', [this.mountPoint], { allow: [1] });
  }

  /** Removes all files, so that many blocks become free. */
  async removeFiles(): Promise<void> {
    for (const name of await readdir(this.mountPoint))
      if (name !== 'lost+found') await rm(join(this.mountPoint, name), { recursive: true, force: true });
  }

  /**
   * Writes random bytes to blocks of the device itself, by a program that opens it without O_EXCL. `unit`:
   * bytes of a block; each block is one write.
   */
  async writeRaw(blocks: readonly number[], unit = 4096): Promise<void> {
    for (const block of blocks)
      await exec('dd', [
        ...['if=/dev/urandom', `of=${this.device}`, `bs=${unit}`, 'count=1', `seek=${block}`],
        ...['oflag=direct', 'conv=notrunc', 'status=none'],
      ]);
  }

  /**
   * Writes the labels of a ZFS pool and some of the pool's data. The superblock of an older filesystem stays.
   */
  async becomeZfs(blocks: readonly number[]): Promise<void> {
    for (const { bytes, offset } of foreignHeaders(this.size).filter(({ type }) => type === 'zfs_member'))
      await exec(
        'dd',
        [
          ...[`of=${this.device}`, 'bs=512', `seek=${offset / 512}`, 'iflag=fullblock'],
          ...['conv=notrunc,fsync', 'status=none'],
        ],
        { input: bytes },
      );
    await this.writeRaw(blocks);
    this.content = 'other';
  }

  /** Copies the device as it is now. */
  async copy(path: string): Promise<void> {
    await rm(path, { force: true });
    await exec('dd', copyArguments(this.device, path));
  }

  /** Writes all blocks of another disk of the same size, including the filesystem's UUID. */
  async cloneOf(other: Disk): Promise<void> {
    await this.putBack(other.device);
    this.content = other.content;
  }

  /** Writes another content of the same size, like the reset of a virtual machine to a snapshot. */
  async putBack(path: string): Promise<void> {
    await exec('dd', [
      ...[`if=${path}`, `of=${this.device}`, 'bs=4M', 'oflag=direct', 'conv=notrunc,fsync'],
      'status=none',
    ]);
  }
}

/**
 * Returns the arguments of dd for a copy that keeps holes. It reads the data on the device, not in its page
 * cache.
 */
export function copyArguments(device: string, path: string): string[] {
  return [`if=${device}`, `of=${path}`, 'bs=4M', 'iflag=direct', 'conv=sparse', 'status=none'];
}

async function writePart(
  path: string,
  { flags, data, at }: { flags: 'a+' | 'w+'; data: Buffer; at: number },
): Promise<void> {
  const file = await open(path, flags);
  try {
    await file.write(data, 0, data.length, at);
    if (data.length % 3 === 0) await file.datasync();
  } finally {
    await file.close();
  }
}

function randomBytes(below: (most: number) => number, length: number): Buffer {
  const data = Buffer.alloc(length);
  let state = 1 + below(2 ** 31);
  for (let at = 0; at + 4 <= length; at += 4) {
    state = Math.imul(state, 0x5bd1e995) ^ (state >>> 15) ^ at;
    data.writeInt32LE(state, at);
  }
  return data;
}
