/** Images of ext2/3/4 in every variant that mke2fs makes, filled and fragmented. Needs root, e2fsprogs. */
import { mkdir, mkdtemp, open, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MiB } from '../../src/base/bytes.ts';
import { atEnd, type EndingTest } from './cleanup.ts';
import { exec } from './exec.ts';
import { attachLoop, detachLoop, mountDevice, unmount } from './loop.ts';

export interface ExtVariant {
  readonly name: string;
  readonly args: readonly string[];
  /** Bytes of the image. Default 640 MiB, which is five groups of 4 KiB blocks. */
  readonly size?: number;
  /** Bytes of the filesystem, if the image is larger. */
  readonly filesystemSize?: number;
  /** False if this kernel cannot mount the variant; debugfs then fragments it. */
  readonly mountable?: false;
  /** False if Debian's partclone (0.3.23) gives up. */
  readonly partclone?: false;
}

export const extVariants: readonly ExtVariant[] = [
  { name: 'ext2', args: ['-t', 'ext2'] },
  { name: 'ext2 of revision 0', args: ['-t', 'ext2', '-r', '0', '-O', 'none'], size: 64 * MiB },
  { name: 'ext3', args: ['-t', 'ext3'] },
  { name: 'ext4', args: ['-t', 'ext4'] },
  { name: 'blocks of 1 KiB', args: ['-t', 'ext4', '-b', '1024'], size: 200 * MiB },
  { name: 'blocks of 2 KiB', args: ['-t', 'ext4', '-b', '2048'] },
  { name: 'blocks of 16 KiB', args: ['-t', 'ext4', '-b', '16384'], mountable: false },
  { name: 'blocks of 64 KiB', args: ['-t', 'ext4', '-b', '65536', '-g', '4096'], mountable: false },
  { name: 'without flex_bg', args: ['-t', 'ext4', '-O', '^flex_bg'] },
  { name: 'without 64bit', args: ['-t', 'ext4', '-O', '^64bit'] },
  { name: 'uninit_bg without metadata_csum', args: ['-t', 'ext4', '-O', '^metadata_csum,uninit_bg'] },
  { name: 'neither uninit_bg nor metadata_csum', args: ['-t', 'ext4', '-O', '^metadata_csum,^uninit_bg'] },
  {
    name: 'uninit_bg, 64bit, without metadata_csum',
    args: ['-t', 'ext4', '-O', '^metadata_csum,uninit_bg,64bit'],
  },
  { name: 'meta_bg', args: ['-t', 'ext4', '-b', '1024', '-O', 'meta_bg,^resize_inode'], size: 400 * MiB },
  {
    name: 'meta_bg without 64bit or flex_bg',
    args: ['-t', 'ext4', '-b', '1024', '-O', 'meta_bg,^resize_inode,^64bit,^flex_bg'],
    size: 600 * MiB,
  },
  { name: 'bigalloc', args: ['-t', 'ext4', '-O', 'bigalloc', '-C', '65536'], partclone: false },
  {
    name: 'bigalloc with blocks of 1 KiB',
    args: ['-t', 'ext4', '-b', '1024', '-O', 'bigalloc', '-C', '16384'],
    partclone: false,
  },
  { name: 'sparse_super2', args: ['-t', 'ext4', '-O', 'sparse_super2'] },
  {
    name: 'sparse_super2, metadata packed',
    args: ['-t', 'ext4', '-b', '1024', '-O', 'sparse_super2', '-E', 'packed_meta_blocks=1'],
  },
  { name: 'without sparse_super', args: ['-t', 'ext4', '-O', '^sparse_super,^resize_inode'] },
  { name: 'without journal', args: ['-t', 'ext4', '-O', '^has_journal'] },
  { name: 'without resize_inode', args: ['-t', 'ext4', '-O', '^resize_inode'] },
  { name: 'inline_data', args: ['-t', 'ext4', '-O', 'inline_data'] },
  { name: 'quota and project', args: ['-t', 'ext4', '-O', 'quota,project'], mountable: false },
  { name: 'verity, encrypt, stable_inodes', args: ['-t', 'ext4', '-O', 'verity,encrypt,stable_inodes'] },
  { name: 'casefold', args: ['-t', 'ext4', '-O', 'casefold'], mountable: false },
  { name: 'orphan_file', args: ['-t', 'ext4', '-O', 'orphan_file'] },
  { name: 'mmp', args: ['-t', 'ext4', '-O', 'mmp'] },
  { name: 'ea_inode and large_dir', args: ['-t', 'ext4', '-O', 'ea_inode,large_dir'] },
  { name: 'metadata_csum_seed', args: ['-t', 'ext4', '-O', 'metadata_csum_seed'] },
  { name: 'fast_commit', args: ['-t', 'ext4', '-O', 'fast_commit'] },
  { name: 'eager inode tables', args: ['-t', 'ext4', '-E', 'lazy_itable_init=0,lazy_journal_init=0'] },
  {
    name: 'smaller than its device, last group short',
    args: ['-t', 'ext4'],
    size: 640 * MiB,
    filesystemSize: 531 * MiB + 20 * 1024,
  },
  {
    name: 'bigalloc with a part of a cluster at its end',
    args: ['-t', 'ext4', '-O', 'bigalloc', '-C', '65536'],
    partclone: false,
    size: 640 * MiB,
    filesystemSize: 531 * MiB + 20 * 1024,
  },
];

/** Makes a directory for images, removed at the end. */
export async function scratchDirectory(t: EndingTest): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'dattod-ext-'));
  atEnd(t, () => rm(directory, { recursive: true, force: true }));
  return directory;
}

/** Makes the image, adds files and deletes every second one. */
export async function makeExtImage(t: EndingTest, directory: string, variant: ExtVariant): Promise<string> {
  const image = await emptyFile(join(directory, 'image'), variant.size ?? 640 * MiB);
  const files = await sampleFiles(directory);
  // `-r 0` does not support what -d needs.
  const populated = variant.args.includes('-r') ? [] : ['-d', files];
  const size = variant.filesystemSize === undefined ? [] : [`${variant.filesystemSize / 1024}K`];
  await exec('mke2fs', ['-q', '-F', '-E', 'nodiscard', ...populated, ...variant.args, image, ...size]);
  if (variant.mountable === false) await fragmentByDebugfs(image);
  else await fragmentByMount(t, image);
  return image;
}

export async function emptyFile(path: string, size: number): Promise<string> {
  await rm(path, { force: true });
  await writeFile(path, '');
  await truncate(path, size);
  return path;
}

const sampleCount = 60;

async function sampleFiles(directory: string): Promise<string> {
  const files = join(directory, 'files');
  await mkdir(files, { recursive: true });
  for (let i = 0; i < sampleCount; i++)
    await writeFile(join(files, `file${i}`), Buffer.alloc(1 + i * 2777, i + 1));
  return files;
}

async function fragmentByDebugfs(image: string): Promise<void> {
  const commands = Array.from({ length: sampleCount / 2 }, (_, i) => `rm /file${i * 2}\n`);
  await writeFile(`${image}.debugfs`, commands.join(''));
  await exec('debugfs', ['-w', '-f', `${image}.debugfs`, image]);
}

async function fragmentByMount(t: EndingTest, image: string): Promise<void> {
  const device = await attachLoop(image);
  const mountPoint = `${image}.mnt`;
  let mounted = false;
  let attached = true;
  // Runs only once, because the device's number may belong to another test afterwards.
  const end = async (): Promise<void> => {
    if (mounted) await unmount(mountPoint);
    mounted = false;
    if (attached) await detachLoop(device);
    attached = false;
  };
  atEnd(t, end);
  await mountDevice(device, mountPoint);
  mounted = true;
  await fragment(mountPoint);
  await end();
}

/** Writes files of many sizes, removes every second one, and leaves one that reaches far into the device. */
export async function fragment(mountPoint: string): Promise<void> {
  const directory = join(mountPoint, 'fragments');
  await mkdir(directory);
  for (let i = 0; i < 120; i++)
    await writeFile(join(directory, `f${i}`), Buffer.alloc(1 + ((i * 7919) % 150_000), i));
  await exec('sync', ['-f', mountPoint]);
  for (let i = 0; i < 120; i += 2) await rm(join(directory, `f${i}`));
  const large = await open(join(mountPoint, 'large'), 'w');
  for (let i = 0; i < 20; i++) await large.write(Buffer.alloc(8192, 1), 0, 8192, i * MiB + 4096);
  await large.close();
  await exec('fallocate', ['-l', '24M', join(mountPoint, 'allocated')], { allow: [1] });
}
