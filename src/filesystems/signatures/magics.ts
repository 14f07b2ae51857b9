/**
 * The signatures that libblkid knows, except those with their own parsers (signatures.ts), as of util-linux 2.41:
 * libblkid/src/superblocks/*.c, and libblkid/src/partitions/*.c for partition tables other than MBR and GPT. A stale
 * filesystem under any of them must not be used, so a match here only means "something else".
 *
 * A magic of four or more bytes counts without further checks. libblkid checks more, so it never finds a signature that
 * is not found here. Shorter magics have a check in weak-magics.ts.
 */
import type { Place } from './regions.ts';

export interface Magic {
  readonly type: string;
  /** Bytes as latin1. */
  readonly magic: string;
  readonly at: readonly Place[];
}

const bcacheFs = '\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef';
const gfs = '\x01\x16\x19\x70';
const stratis = '!Stra0tis\x86\xff\x02^\x41rh';
const luks2Copies = [0x4000, 0x8000, 0x10000, 0x20000, 0x40000, 0x80000, 0x100000, 0x200000, 0x400000];
const lastSector = { beforeEnd: 512 };
const promiseSectors = [63, 255, 256, 16, 399, 591, 675, 735, 911, 974, 991, 951, 3087];

/** RAID of mainboards and controllers, and volume managers: signatures below them belong to their contents. */
export const containerMagics: readonly Magic[] = [
  {
    type: 'isw_raid_member',
    magic: 'Intel Raid ISM Cfg Sig. ',
    at: [{ beforeEnd: 1024 }, { beforeEnd: 8192, unit: 4096 }],
  },
  { type: 'ddf_raid_member', magic: '\xde\x11\xde\x11', at: [lastSector, { beforeEnd: 257 * 512 }] },
  { type: 'lsi_mega_raid_member', magic: '$XIDE$', at: [lastSector] },
  {
    type: 'promise_fasttrack_raid_member',
    magic: 'Promise Technology, Inc.',
    at: promiseSectors.map((sectors) => ({ beforeEnd: sectors * 512 })),
  },
  { type: 'nvidia_raid_member', magic: 'NVIDIA  ', at: [{ beforeEnd: 1024 }] },
  { type: 'adaptec_raid_member', magic: '\x37\xfc\x4d\x1e', at: [lastSector] },
  ...['\xf3\x16\x78\x5a', '\xfd\x16\x78\x5a'].map((magic) => ({
    type: 'hpt45x_raid_member',
    magic,
    at: [{ beforeEnd: 11 * 512 }],
  })),
  ...['\xf0\x16\x78\x5a', '\xfd\x16\x78\x5a'].map((magic) => ({
    type: 'hpt37x_raid_member',
    magic,
    at: [9 * 512 + 32],
  })),
  {
    type: 'bcache',
    magic: '\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81',
    at: [0x1018],
  },
  ...['\x83\x74\x02\x6b', '\x83\x74\x02\x6c', '\x83\x74\x02\x6d'].map((magic) => ({
    type: 'drbd',
    magic,
    at: [1, 1024].map((unit) => ({ beforeEnd: 4096 - 60, unit })),
  })),
  { type: 'drbdmanage_control_volume', magic: '$DRBDmgr=q', at: [0] },
  { type: 'drbdproxy_datalog', magic: 'DRBDdlh*', at: [0] },
  { type: 'ceph_bluestore', magic: 'bluestore block device', at: [0] },
  { type: 'LVM2_member', magic: 'LVM2 001', at: [0x18, 0x218, 0x418, 0x618] },
  { type: 'LVM1_member', magic: 'HM\x01\0', at: [0] },
  { type: 'LVM1_member', magic: 'HM\x02\0', at: [0] },
  { type: 'DM_snapshot_cow', magic: 'SnAp', at: [0] },
  { type: 'DM_verity_hash', magic: 'verity\0\0', at: [0] },
  { type: 'DM_integrity', magic: 'integrt\0', at: [0] },
  { type: 'crypto_LUKS', magic: 'SKUL\xba\xbe', at: luks2Copies },
  { type: 'VMFS_volume_member', magic: '\x0d\xd0\x01\xc0', at: [0x100000] },
  { type: 'ubi', magic: 'UBI#', at: [0] },
  { type: 'vdo', magic: 'dmvdo001', at: [0] },
  { type: 'stratis', magic: stratis, at: [0x204, 0x1204] },
  { type: 'BitLocker', magic: '-FVE-FS-', at: [3] },
  { type: 'oracleasm', magic: 'ORCLDISK', at: [32] },
];

export const filesystemMagics: readonly Magic[] = [
  {
    type: 'bcachefs',
    magic: bcacheFs,
    at: [0x1018, 0x200018, ...[1, 1024].map((unit) => ({ beforeEnd: 0x100000 - 0x18, unit }))],
  },
  { type: 'exfs', magic: 'EXFS', at: [0] },
  { type: 'reiserfs', magic: 'ReIsEr2Fs', at: [0x10034] },
  { type: 'reiserfs', magic: 'ReIsEr3Fs', at: [0x10034] },
  { type: 'reiserfs', magic: 'ReIsErFs', at: [0x10034, 0x2034, 0x2014] },
  { type: 'reiser4', magic: 'ReIsEr4', at: [0x10000] },
  { type: 'jfs', magic: 'JFS1', at: [0x8000] },
  ...['BEA01', 'BOOT2', 'CDW02', 'NSR02', 'NSR03', 'TEA01'].map((magic) => ({
    type: 'udf',
    magic,
    at: [0x8001],
  })),
  { type: 'iso9660', magic: 'CDROM', at: [0x8009] },
  { type: 'hpfs', magic: '\x49\xe8\x95\xf9', at: [0x2000] },
  ...['\x20\x7e\x18\xfd', '\xfd\x18\x7e\x20'].map((magic) => ({
    type: 'sysv',
    magic,
    at: [0, 9, 15, 18].map((block) => block * 1024 + 512 + 504),
  })),
  ...['\x2b\x55\x44\0', '\0\x44\x55\x2b'].map((magic) => ({ type: 'xenix', magic, at: [0x800] })),
  ...[0x00011954, 0x19540119, 0x00195612, 0x00095014, 0x00612195, 0x05231994]
    .flatMap((number) => bothOrders(number))
    .map((magic) => ({ type: 'ufs', magic, at: [0, 8, 64, 256].map((kib) => kib * 1024 + 1372) })),
  { type: 'ReFS', magic: '\0\0\0ReFS\0', at: [0] },
  { type: 'cramfs', magic: '\x45\x3d\xcd\x28', at: [0] },
  { type: 'cramfs', magic: '\x28\xcd\x3d\x45', at: [0] },
  { type: 'romfs', magic: '-rom1fs-', at: [0] },
  { type: 'scoutfs', magic: '\x8b\x42\x3c\x10', at: [0x10004] },
  { type: 'gfs2', magic: gfs, at: [0x10000] },
  { type: 'ocfs', magic: 'OracleCFS', at: [0x2000] },
  { type: 'ocfs2', magic: 'OCFSV2', at: [0x400, 0x800, 0x1000, 0x2000] },
  { type: 'vxfs', magic: '\xf5\xfc\x01\xa5', at: [0x400] },
  { type: 'vxfs', magic: '\xa5\x01\xfc\xf5', at: [0x2000] },
  { type: 'squashfs3', magic: 'sqsh', at: [0] },
  { type: 'nss', magic: 'SPB5', at: [0x1000] },
  { type: 'ubifs', magic: '\x31\x18\x10\x06', at: [0] },
  { type: 'bfs', magic: '\xce\xfa\xad\x1b', at: [0] },
  { type: 'VMFS', magic: '\x5e\xf1\xab\x2f', at: [0x200000] },
  { type: 'befs', magic: 'BFS1', at: [0x20, 0x220] },
  { type: 'befs', magic: '1SFB', at: [0x20, 0x220] },
  { type: 'f2fs', magic: '\x10\x20\xf5\xf2', at: [0x400] },
  { type: 'mpool', magic: 'mpoolDev', at: [0] },
  { type: 'apfs', magic: 'NXSB', at: [32] },
  { type: 'zonefs', magic: 'SFOZ', at: [0] },
  { type: 'erofs', magic: '\xe2\xe1\xf5\xe0', at: [0x400] },
];

/** Partition tables that the Linux kernel of most machines does not read. The names are blkid's. */
export const tableMagics: readonly Magic[] = [
  { type: 'aix', magic: '\xc9\xc2\xd4\xc1', at: [0] },
  { type: 'sgi', magic: '\x0b\xe5\xa9\x41', at: [0] },
  { type: 'bsd', magic: '\x57\x45\x56\x82', at: [64, 128, 512] },
  { type: 'solaris', magic: '\xee\xde\x0d\x60', at: [512 + 12] },
  { type: 'unixware', magic: '\x0d\x60\xe5\xca', at: [29 * 512 + 4] },
  { type: 'ultrix', magic: '\x57\x29\x03\0\x01\0\0\0', at: [16384 - 72] },
];

function bothOrders(number: number): string[] {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(number);
  return [bytes.toString('latin1'), Buffer.from(bytes).reverse().toString('latin1')];
}
