/** Signatures of other filesystems, RAID members and partition tables, as bytes to write over an image. */
import { crc32 } from 'node:zlib';
import { KiB } from '../../src/base/bytes.ts';
import { crc32c } from '../../src/base/crc32c.ts';
import { containerMagics, filesystemMagics, tableMagics } from '../../src/filesystems/signatures/magics.ts';
import { placeOn } from '../../src/filesystems/signatures/regions.ts';

export interface Foreign {
  readonly type: string;
  readonly offset: number;
  readonly bytes: Buffer;
}

/** Returns every magic of the table at every place, for a device of `size` bytes. */
export function foreignMagics(size: number): Foreign[] {
  return [...containerMagics, ...filesystemMagics, ...tableMagics].flatMap(({ type, magic, at }) =>
    at.map((place) => ({ type, offset: placeOn(size, place), bytes: Buffer.from(magic, 'latin1') })),
  );
}

/** Returns the signatures that need more than a magic, as libblkid 2.38 accepts them. */
export function foreignHeaders(size: number): Foreign[] {
  const end = size - (size % 512);
  const zfsEnd = size - (size % (256 * KiB));
  return [
    { type: 'via_raid_member', offset: end - 512, bytes: viaRaid() },
    { type: 'silicon_medley_raid_member', offset: end - 512, bytes: siliconRaid() },
    { type: 'jmicron_raid_member', offset: end - 512, bytes: jmicronRaid() },
    { type: 'nvidia_raid_member', offset: end - 1024, bytes: nvidiaRaid() },
    { type: 'adaptec_raid_member', offset: end - 512, bytes: adaptecRaid() },
    { type: 'cs_fvault2', offset: 0, bytes: fileVault() },
    ...[0, 256 * KiB, zfsEnd - 512 * KiB, zfsEnd - 256 * KiB].flatMap((label) => [
      { type: 'zfs_member', offset: label + 128 * KiB, bytes: uberblocks(false) },
      { type: 'zfs_member', offset: label + 128 * KiB, bytes: uberblocks(true) },
      { type: 'zfs_member', offset: label + 16 * KiB, bytes: poolConfiguration() },
    ]),
    { type: 'xfs_external_log', offset: 512, bytes: xfsLogRecord() },
    { type: 'hfs', offset: 1024, bytes: patched(512, [0, 'BD'], [20, be32(4096)]) },
    {
      type: 'hfs',
      offset: 1024,
      bytes: patched(512, [0, 'H+'], [2, Buffer.from([0, 4])], [40, be32(4096)]),
    },
    { type: 'minix', offset: 1024, bytes: minix() },
    { type: 'nilfs2', offset: 1024, bytes: nilfs(size) },
    { type: 'nilfs2', offset: end - 4096, bytes: nilfs(size) },
    { type: 'squashfs3', offset: 0, bytes: patched(96, [0, 'hsqs'], [28, '\x03\0']) },
    { type: 'squashfs', offset: 0, bytes: patched(96, [0, 'hsqs'], [28, '\x04\0']) },
    { type: 'sun', offset: 0, bytes: sunTable() },
    {
      type: 'mac',
      offset: 0,
      bytes: patched(1024, [0, 'ER'], [2, Buffer.from([2, 0])], [512, 'PM\0\0'], [516, be32(1)]),
    },
    {
      type: 'atari',
      offset: 0,
      bytes: patched(512, [0x1c2, be32(2048)], [0x1c6, '\x01GEM'], [0x1ca, be32(2)], [0x1ce, be32(1000)]),
    },
    { type: 'gpt', offset: 512, bytes: gptHeader() },
    { type: 'linux_raid_member', offset: size - (size % 65536) - 65536, bytes: oldRaid() },
    ...[size - (size % 4096) - 8192, 0, 4096].map((offset) => ({
      type: 'linux_raid_member',
      offset,
      bytes: newRaid(offset),
    })),
  ];
}

function patched(length: number, ...patches: readonly (readonly [number, string | Buffer])[]): Buffer {
  const bytes = Buffer.alloc(length);
  for (const [at, what] of patches)
    (typeof what === 'string' ? Buffer.from(what, 'latin1') : what).copy(bytes, at);
  return bytes;
}

function be32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function le32(value: number): Buffer {
  return be32(value).reverse();
}

function viaRaid(): Buffer {
  const bytes = patched(51, [0, '\x55\xaa\x01']);
  bytes[50] = bytes.reduce((sum, byte) => sum + byte, 0);
  return bytes;
}

function siliconRaid(): Buffer {
  const bytes = patched(512, [0x60, le32(0x2f000000)], [0x116, '\x01']);
  let sum = 0;
  for (let at = 0; at < 0x13e; at += 2) sum += bytes.readUInt16LE(at);
  bytes.writeUInt16LE(-sum & 0xffff, 0x13e);
  return bytes;
}

function jmicronRaid(): Buffer {
  const bytes = patched(128, [0, 'JM'], [0x30, '\x01']);
  let sum = 0;
  for (let at = 0; at < 128; at += 2) sum += bytes.readUInt16LE(at);
  bytes.writeUInt16LE(-sum & 0xffff, 4);
  return bytes;
}

function nvidiaRaid(): Buffer {
  const bytes = patched(120, [0, 'NVIDIA  '], [8, le32(30)]);
  let sum = 0;
  for (let at = 0; at < 120; at += 4) sum = (sum + bytes.readUInt32LE(at)) >>> 0;
  bytes.writeUInt32LE(-sum >>> 0, 12);
  return bytes;
}

function adaptecRaid(): Buffer {
  return patched(512, [0, be32(0x37fc4d1e)], [256, 'DPTM']);
}

function fileVault(): Buffer {
  const bytes = patched(512, [8, '\x01\0\x10\0'], [88, 'CS'], [90, le32(1)], [168, le32(16)], [172, le32(2)]);
  // The CRC register begins with the seed, zero here, and is stored without inversion.
  bytes.writeUInt32LE(~crc32c(bytes.subarray(8), 0xffffffff) >>> 0, 0);
  return bytes;
}

function uberblocks(bigEndian: boolean): Buffer {
  const bytes = Buffer.alloc(8 * KiB);
  for (let at = 0; at < bytes.length; at += KiB)
    for (const [i, value] of [0xbab10cn, 5000n, 100n, 1n, 1n].entries())
      if (bigEndian) bytes.writeBigUInt64BE(value, at + i * 8);
      else bytes.writeBigUInt64LE(value, at + i * 8);
  return bytes;
}

/**
 * Returns the list of names and values as OpenZFS writes it: XDR, with `txg` and `guid` as 64-bit numbers.
 */
function poolConfiguration(): Buffer {
  const pair = (name: string, value: bigint): Buffer => {
    const padded = Buffer.alloc(Math.ceil(name.length / 4) * 4);
    padded.write(name);
    const number = Buffer.alloc(8);
    number.writeBigUInt64BE(value);
    const body = Buffer.concat([be32(name.length), padded, be32(8), be32(1), number]);
    return Buffer.concat([be32(body.length + 8), be32(body.length + 8), body]);
  };
  return Buffer.concat([
    Buffer.from([1, 1, 0, 0]),
    be32(0),
    be32(1),
    pair('state', 0n),
    pair('txg', 4n),
    pair('guid', 1234567890123n),
    Buffer.alloc(8),
  ]);
}

function xfsLogRecord(): Buffer {
  return patched(512, [0, be32(0xfeedbabe)], [4, be32(1)], [8, be32(2)], [12, be32(512)], [300, be32(1)]);
}

function minix(): Buffer {
  return patched(
    512,
    [0, '\x20\0\x40\0'],
    [4, '\x01\0\x01\0'],
    [8, '\x08\0\0\0'],
    [16, '\x7f\x13'],
    [18, '\x01\0'],
  );
}

function nilfs(size: number): Buffer {
  const bytes = patched(1024, [6, '\x34\x34'], [8, '\x18\x01'], [12, le32(0x1234)]);
  bytes.writeBigUInt64LE(BigInt(size), 32);
  bytes.writeUInt32LE(~crc32(bytes.subarray(0, 280), ~0x1234 >>> 0) >>> 0, 16);
  return bytes;
}

function sunTable(): Buffer {
  const bytes = patched(512, [508, '\xda\xbe']);
  bytes.writeUInt16BE(0xdabe, 510);
  return bytes;
}

function gptHeader(): Buffer {
  const bytes = patched(512, [0, 'EFI PART'], [12, le32(92)]);
  bytes.writeUInt32LE(crc32(bytes.subarray(0, 92)), 16);
  return bytes;
}

function oldRaid(): Buffer {
  return patched(4096, [0, le32(0xa92b4efc)], [4, le32(0)], [8, le32(90)], [0x14, le32(0x11223344)]);
}

function newRaid(offset: number): Buffer {
  const bytes = patched(256, [0, le32(0xa92b4efc)], [4, le32(1)], [0x10, 'a raid of 16 byt']);
  bytes.writeBigUInt64LE(BigInt(offset / 512), 0x90);
  let sum = 0n;
  for (let at = 0; at < 256; at += 4) sum += BigInt(bytes.readUInt32LE(at));
  bytes.writeUInt32LE(Number((sum & 0xffffffffn) + (sum >> 32n)), 0xd8);
  return bytes;
}
