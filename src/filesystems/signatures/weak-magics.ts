/**
 * Signatures that need more than a comparison, because their magic is short or may be at many places. Each has the
 * checks that libblkid makes (util-linux 2.41, superblocks/*.c and partitions/*.c).
 */
import { crc32 } from 'node:zlib';
import { KiB } from '../../base/bytes.ts';
import { placeOn, type Regions } from './regions.ts';

/** Returns the offsets of the signature in bytes. */
export type WeakMagic = (regions: Regions) => Promise<number[]>;

export const weakMagics: readonly { readonly type: string; readonly find: WeakMagic }[] = [
  { type: 'via_raid_member', find: (regions) => inLastSector(regions, viaRaid) },
  { type: 'silicon_medley_raid_member', find: (regions) => inLastSector(regions, siliconRaid) },
  { type: 'jmicron_raid_member', find: (regions) => inLastSector(regions, jmicronRaid) },
  { type: 'cs_fvault2', find: ({ head }) => Promise.resolve(fileVault(head) ? [0] : []) },
  { type: 'BitLocker', find: ({ head }) => Promise.resolve(bitLockerToGo(head) ? [0] : []) },
  { type: 'zfs_member', find: zfs },
  { type: 'xfs_external_log', find: ({ head }) => Promise.resolve(xfsLog(head)) },
  { type: 'hfs', find: ({ head }) => Promise.resolve(hfs(head) ? [0x400] : []) },
  { type: 'minix', find: ({ head }) => Promise.resolve(minix(head) ? [0x400] : []) },
  { type: 'nilfs2', find: nilfs },
];

export const weakTables: readonly { readonly type: string; readonly find: WeakMagic }[] = [
  { type: 'sun', find: ({ head }) => Promise.resolve(sunTable(head) ? [0] : []) },
  { type: 'mac', find: ({ head }) => Promise.resolve(macTable(head) ? [0] : []) },
  { type: 'atari', find: ({ head, size }) => Promise.resolve(atariTable(head, size) ? [0] : []) },
  { type: 'gpt', find: ({ head }) => Promise.resolve([512, 4096].filter((at) => isGptAlone(head, at))) },
];

async function inLastSector(regions: Regions, matches: (sector: Buffer) => boolean): Promise<number[]> {
  const offset = placeOn(regions.size, { beforeEnd: 512 });
  const sector = await regions.at(offset, 512);
  return sector !== undefined && matches(sector) ? [offset] : [];
}

function viaRaid(sector: Buffer): boolean {
  const sum = sector.subarray(0, 50).reduce((total, byte) => total + byte, 0) & 0xff;
  return sector.readUInt16LE(0) === 0xaa55 && sector[2]! <= 2 && sum === sector[50];
}

function siliconRaid(sector: Buffer): boolean {
  let sum = 0;
  for (let at = 0; at < 0x13e; at += 2) sum += sector.readUInt16LE(at);
  return sector.readUInt32LE(0x60) === 0x2f000000 && (-sum & 0xffff) === sector.readUInt16LE(0x13e);
}

function jmicronRaid(sector: Buffer): boolean {
  let sum = 0;
  for (let at = 0; at < 128; at += 2) sum += sector.readUInt16LE(at);
  return sector.toString('latin1', 0, 2) === 'JM' && (sum & 0xffff) <= 1 && sector[0x30]! <= 5;
}

function fileVault(head: Buffer): boolean {
  return (
    head.length >= 512 &&
    head.toString('latin1', 88, 90) === 'CS' &&
    head.readUInt16LE(8) === 1 &&
    head.readUInt16LE(10) === 0x10
  );
}

/** Returns whether this is a FAT boot sector with BitLocker's GUID. */
function bitLockerToGo(head: Buffer): boolean {
  return (
    head.length >= 512 &&
    head.toString('latin1', 0, 11) === '\xeb\x58\x90MSWIN4.1' &&
    head.subarray(424, 440).equals(bitLockerGuid)
  );
}

const bitLockerGuid = Buffer.from('3bd66749292ed84a8399f6a339e3d001', 'hex');

/**
 * Finds labels of ZFS. There are four labels of 256 KiB: two at the start, two at the end (OpenZFS,
 * module/zfs/vdev_label.c). In each: from 16 KiB the pool's configuration as a list of names and values, from 128 KiB
 * uberblocks, each a multiple of 1 KiB apart. ZFS does not change the first 8 KiB, so an older XFS superblock stays.
 * libblkid up to 2.40 searches for four uberblocks, later versions for the configuration; here either is enough.
 */
async function zfs(regions: Regions): Promise<number[]> {
  const { size } = regions;
  if (size < 4 * zfsLabel) return [];
  const ends = [2, 1].map((labels) => placeOn(size, { beforeEnd: labels * zfsLabel, unit: zfsLabel }));
  const found: number[] = [];
  for (const offset of [0, zfsLabel, ...ends]) {
    const label = await regions.at(offset, zfsLabel);
    if (label !== undefined && isZfsLabel(label)) found.push(offset);
  }
  return found;
}

const zfsLabel = 256 * KiB;

function isZfsLabel(label: Buffer): boolean {
  for (let at = 128 * KiB; at < zfsLabel; at += KiB)
    if (label.readBigUInt64LE(at) === uberblock || label.readBigUInt64BE(at) === uberblock) return true;
  const list = label.subarray(16 * KiB, 128 * KiB);
  return list[0] === 1 && list[1]! <= 1 && list.readUInt32BE(12) !== 0 && list.includes('guid');
}

const uberblock = 0xbab10cn;

/** Finds an XFS log on a device of its own. A filesystem with its superblock there holds its own log. */
function xfsLog(head: Buffer): number[] {
  for (let at = 0; at + 512 <= Math.min(head.length, 256 * KiB); at += 512) {
    const magic = head.readUInt32BE(at);
    if (magic === 0x58465342) return [];
    const version = head.readUInt32BE(at + 8);
    const format = head.readUInt32BE(at + 300);
    if (magic === 0xfeedbabe && version >= 1 && version <= 3 && head.readInt32BE(at + 12) > 0)
      if (format >= 1 && format <= 3) return [at];
  }
  return [];
}

/**
 * Recognises HFS and HFS+. An ext superblock has its number of inodes at the magic, and its inodes per group at the
 * block size.
 */
function hfs(head: Buffer): boolean {
  const volume = head.subarray(0x400, 0x600);
  if (volume.length < 0x200) return false;
  const magic = volume.toString('latin1', 0, 2);
  if (magic === 'BD') return volume.readUInt32BE(20) !== 0 && volume.readUInt32BE(20) % 512 === 0;
  if (magic !== 'H+' && magic !== 'HX') return false;
  const blockSize = volume.readUInt32BE(40);
  return blockSize >= 512 && Number.isInteger(Math.log2(blockSize));
}

/** Recognises Minix. Its magic is a number that an ext superblock may have at the same place: its free inodes. */
function minix(head: Buffer): boolean {
  const volume = head.subarray(0x400, 0x600);
  // libblkid makes the same exception for ext.
  if (volume.length < 0x200 || head.readUInt16LE(0x438) === 0xef53) return false;
  const magics = [volume.readUInt16LE(0x10), volume.readUInt16BE(0x10)];
  const third = [volume.readUInt16LE(0x18), volume.readUInt16BE(0x18)];
  return magics.some((one) => [0x137f, 0x138f, 0x2468, 0x2478].includes(one)) || third.includes(0x4d5a);
}

/** Finds the superblock, at 1 KiB and in the last 4 KiB, with its checksum. */
async function nilfs(regions: Regions): Promise<number[]> {
  const found: number[] = [];
  for (const offset of [0x400, placeOn(regions.size, { beforeEnd: 8 * 512 })]) {
    const sb = await regions.at(offset, 1024);
    if (sb?.readUInt16LE(6) !== 0x3434) continue;
    const bytes = sb.readUInt16LE(8);
    if (bytes < 20 || bytes > 1024) continue;
    const covered = Buffer.from(sb.subarray(0, bytes));
    const stored = covered.readUInt32LE(16);
    covered.writeUInt32LE(0, 16);
    // The kernel's CRC-32 keeps its register unchanged; zlib's has it inverted.
    const computed = ~crc32(covered, ~sb.readUInt32LE(12) >>> 0) >>> 0;
    if (computed === stored) found.push(offset);
  }
  return found;
}

function sunTable(head: Buffer): boolean {
  if (head.length < 512 || head.readUInt16BE(508) !== 0xdabe) return false;
  let sum = 0;
  for (let at = 0; at < 512; at += 2) sum ^= head.readUInt16BE(at);
  return sum === 0;
}

function macTable(head: Buffer): boolean {
  if (head.length < 1024 || head.toString('latin1', 0, 2) !== 'ER') return false;
  const block = head.readUInt16BE(2);
  const signature = head.toString('latin1', block, block + 2);
  return block >= 512 && (signature === 'PM' || signature === 'TS');
}

/**
 * Recognises a table without a magic: a list of partitions whose ids are letters and digits, and which fit into the
 * size that the table gives.
 */
function atariTable(head: Buffer, size: number): boolean {
  if (head.length < 512 || (head[510] === 0x55 && head[511] === 0xaa)) return false;
  const sectors = head.readUInt32BE(0x1c2);
  if (sectors < 2 || sectors > size / 512) return false;
  return [0x1c6, 0x1d2, 0x1de, 0x1ea].some((at) => {
    const start = head.readUInt32BE(at + 4);
    const count = head.readUInt32BE(at + 8);
    const named = /^[A-Za-z0-9]{3}$/.test(head.toString('latin1', at + 1, at + 4));
    return (head[at]! & 1) === 1 && named && start > 0 && start + count <= sectors;
  });
}

/** Recognises a GPT without its protective MBR. The kernel ignores it, but it shows that the disk was partitioned. */
function isGptAlone(head: Buffer, at: number): boolean {
  if (head.length < at + 512 || (head[510] === 0x55 && head[511] === 0xaa)) return false;
  const header = Buffer.from(head.subarray(at, at + 512));
  const size = header.readUInt32LE(12);
  if (header.toString('latin1', 0, 8) !== 'EFI PART' || size < 92 || size > 512) return false;
  const stored = header.readUInt32LE(16);
  header.writeUInt32LE(0, 16);
  return crc32(header.subarray(0, size)) === stored;
}
