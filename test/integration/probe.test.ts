/**
 * Proves that our report of a device's content (type, UUID, label, block size) equals blkid's, for every type
 * we know. Debian packages: util-linux e2fsprogs xfsprogs dosfstools btrfs-progs ntfs-3g cryptsetup-bin lvm2
 * squashfs-tools genisoimage.
 */
import assert from 'node:assert/strict';
import { mkdir, open, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { probe } from '../../src/filesystems/probe.ts';
import { findSignatures } from '../../src/filesystems/signatures/signatures.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { foreignHeaders, foreignMagics } from '../helpers/foreign-signatures.ts';
import { emptyFile, scratchDirectory } from '../helpers/ext-images.ts';
import { attachLoop, detachLoop } from '../helpers/loop.ts';
import { openImage } from '../helpers/used-extents.ts';

interface Case {
  readonly name: string;
  /** Commands without the argument `image`, which is appended. */
  readonly make: readonly [string, ...string[]];
  readonly size?: number;
  /** Needs a block device rather than a file. */
  readonly device?: true;
  readonly type: string;
}

const key = ['-q', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000'];
const cases: readonly Case[] = [
  { name: 'ext2', make: ['mke2fs', '-q', '-t', 'ext2', '-L', 'a label'], type: 'ext2' },
  { name: 'ext2 with sparse_super alone', make: ['mke2fs', '-q', '-O', 'none,sparse_super'], type: 'ext2' },
  { name: 'ext3', make: ['mke2fs', '-q', '-t', 'ext3', '-L', 'größe'], type: 'ext3' },
  { name: 'ext4', make: ['mke2fs', '-q', '-t', 'ext4', '-L', 'sixteen-letters!'], type: 'ext4' },
  { name: 'ext4 without journal', make: ['mke2fs', '-q', '-t', 'ext4', '-O', '^has_journal'], type: 'ext4' },
  { name: 'ext4 by extents alone', make: ['mke2fs', '-q', '-O', 'none,extents'], type: 'ext4' },
  { name: 'ext4dev', make: ['mke2fs', '-q', '-t', 'ext4', '-E', 'test_fs'], type: 'ext4dev' },
  { name: 'external journal', make: ['mke2fs', '-q', '-O', 'journal_dev'], type: 'jbd' },
  { name: 'XFS', make: ['mkfs.xfs', '-q', '-L', 'xfs label'], size: 320 * MiB, type: 'xfs' },
  { name: 'XFS v4', make: ['mkfs.xfs', '-q', '-m', 'crc=0'], size: 320 * MiB, type: 'xfs' },
  { name: 'swap', make: ['mkswap', '-q', '-L', 'swap label'], type: 'swap' },
  { name: 'swap with pages of 64 KiB', make: ['mkswap', '-q', '-p', '65536'], type: 'swap' },
  { name: 'FAT12', make: ['mkfs.vfat', '-n', 'TWELVE'], size: 2 * MiB, type: 'vfat' },
  { name: 'FAT16', make: ['mkfs.vfat', '-F', '16', '-n', 'SIX TEEN'], type: 'vfat' },
  { name: 'FAT32', make: ['mkfs.vfat', '-F', '32', '-n', 'EFI'], size: 300 * MiB, type: 'vfat' },
  { name: 'FAT32, no label', make: ['mkfs.vfat', '-F', '32', '-S', '4096'], size: 600 * MiB, type: 'vfat' },
  { name: 'btrfs', make: ['mkfs.btrfs', '-q', '-L', 'btrfs label'], size: 200 * MiB, type: 'btrfs' },
  { name: 'NTFS', make: ['mkntfs', '-q', '-F', '-f', '-L', 'Windöws'], type: 'ntfs' },
  { name: 'LUKS 1', make: ['cryptsetup', 'luksFormat', '--type', 'luks1', ...key], type: 'crypto_LUKS' },
  {
    name: 'LUKS 2',
    make: ['cryptsetup', 'luksFormat', '--type', 'luks2', '--label', 'secret', ...key],
    type: 'crypto_LUKS',
  },
  {
    name: 'LVM',
    make: ['pvcreate', '-q', '--config', 'devices{use_devicesfile=0}'],
    device: true,
    type: 'LVM2_member',
  },
];

for (const one of cases)
  test(`probe: ${one.name}`, async (t) => {
    const image = await emptyFile(join(await scratchDirectory(t), 'image'), one.size ?? 64 * MiB);
    let surface = image;
    if (one.device) {
      surface = await attachLoop(image);
      atEnd(t, () => detachLoop(surface));
    }
    const [program, ...args] = one.make;
    await exec(program, [...args, surface], { input: 'a passphrase' });
    assert.equal(await compare(image), one.type);
  });

test('probe: squashfs and ISO 9660', async (t) => {
  const directory = await scratchDirectory(t);
  const files = join(directory, 'files');
  await mkdir(files);
  await writeFile(join(files, 'a'), 'b');
  await exec('mksquashfs', [files, join(directory, 'squashfs'), '-quiet']);
  assert.equal(await compare(join(directory, 'squashfs')), 'squashfs');
  await exec('genisoimage', ['-quiet', '-V', 'A LABEL', '-o', join(directory, 'iso'), files]);
  assert.equal(await compare(join(directory, 'iso')), 'iso9660');
});

test('probe: RAID members with the superblock at either end, over a filesystem', async (t) => {
  const size = 64 * MiB;
  const image = join(await scratchDirectory(t), 'image');
  for (const offset of [size - 8192, 0, 4096]) {
    await emptyFile(image, size);
    if (offset > 4096) await exec('mke2fs', ['-q', '-F', '-t', 'ext4', image]);
    await patch(image, offset, raidSuperblock(offset));
    assert.equal(await compare(image), 'linux_raid_member');
  }
  await emptyFile(image, size);
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', image]);
  await patch(image, size - 65536, oldRaidSuperblock());
  assert.equal(await compare(image), 'linux_raid_member');
});

test('every signature that wipefs finds, at any place, is found here', async (t) => {
  const size = 64 * MiB + 3 * 512;
  const image = join(await scratchDirectory(t), 'image');
  const seen = new Set<string>();
  for (const { type, offset, bytes } of [...foreignMagics(size), ...foreignHeaders(size)]) {
    await emptyFile(image, size);
    await patch(image, offset, bytes);
    const { stdout } = await exec('wipefs', ['-n', '-J', image]);
    const theirs = stdout === '' ? [] : (JSON.parse(stdout) as { signatures: { type: string }[] }).signatures;
    await using open = await openImage(image);
    const ours = (await findSignatures(open.readAt, size)).map(({ identity }) => identity.type);
    assert.ok(ours.includes(type), `${type} at ${offset}`);
    for (const one of theirs) {
      const name = ourNames[one.type] ?? one.type;
      seen.add(name);
      assert.ok(ours.includes(name), `${one.type} at ${offset} is not among ${ours.join()}`);
    }
  }
  // Signatures that need more than a magic are made as libblkid accepts them. Otherwise the comparison would
  // prove nothing.
  const unseen = foreignHeaders(size).filter(({ type }) => !seen.has(type));
  assert.deepEqual(
    unseen.map(({ type }) => type),
    notInBlkid,
  );
});

/** A GPT without its MBR, and types that util-linux 2.38 does not know yet. */
const notInBlkid = ['cs_fvault2', 'gpt'];

/** Our names, if blkid's name differs. */
const ourNames: Readonly<Record<string, string>> = { hfsplus: 'hfs', gfs: 'gfs2' };

test('probe: nothing', async (t) => {
  const image = await emptyFile(join(await scratchDirectory(t), 'image'), 8 * MiB);
  assert.equal(await compare(image), '');
  // The file is smaller than any header.
  await emptyFile(image, 700);
  assert.equal(await compare(image), '');
});

/** Compares our probe with blkid's. Returns the type. */
async function compare(path: string): Promise<string> {
  await using image = await openImage(path);
  const identity = await probe(image.readAt, image.size);
  const ours = {
    TYPE: identity?.type ?? '',
    UUID: identity?.uuid ?? '',
    LABEL: identity?.label ?? '',
  };
  assert.deepEqual(ours, {
    TYPE: await blkid('TYPE'),
    UUID: await blkid('UUID'),
    LABEL: await blkid('LABEL'),
  });
  const blockSize = await blkid('BLOCK_SIZE');
  // For XFS blkid means the sector. It gives no block size for swap, RAID, LVM and LUKS.
  if (blockSize !== '' && ours.TYPE !== 'xfs') assert.equal(identity?.blockSize, Number(blockSize));
  return ours.TYPE;

  async function blkid(tag: string): Promise<string> {
    const args = ['-p', '-o', 'value', '-s', tag, path];
    return (await exec('blkid', args, { allow: [2] })).stdout.replace(/\n$/, '');
  }
}

/** Returns a superblock of version 1.x, as Linux `include/uapi/linux/raid/md_p.h` defines it. */
function raidSuperblock(offset: number): Buffer {
  const sb = Buffer.alloc(256 + 4);
  sb.writeUInt32LE(0xa92b4efc, 0);
  sb.writeUInt32LE(1, 4);
  sb.write('0123456789abcdef', 0x10);
  sb.write('host:name', 0x20);
  sb.writeBigUInt64LE(BigInt(offset / 512), 0x90);
  sb.writeUInt32LE(2, 0xdc);
  let sum = 0n;
  for (let at = 0; at < sb.length; at += 4) sum += BigInt(sb.readUInt32LE(at));
  sb.writeUInt32LE(Number(((sum >> 32n) + sum) & 0xffffffffn), 0xd8);
  return sb;
}

/** Returns a superblock of version 0.90. */
function oldRaidSuperblock(): Buffer {
  const sb = Buffer.alloc(4096);
  for (const [offset, value] of [
    [0x00, 0xa92b4efc],
    [0x08, 90],
    [0x14, 0x01020304],
    [0x20, 60 * 1024],
    [0x34, 0x05060708],
    [0x38, 0x090a0b0c],
    [0x3c, 0x0d0e0f10],
  ] as const)
    sb.writeUInt32LE(value, offset);
  return sb;
}

async function patch(path: string, offset: number, bytes: Buffer): Promise<void> {
  const file = await open(path, 'r+');
  await file.write(bytes, 0, bytes.length, offset);
  await file.close();
}
