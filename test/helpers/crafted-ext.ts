/**
 * Builds an ext4 image with uninit_bg and flex_bg from scratch, with correct checksums and any given
 * geometry.
 */
import { crc16 } from '../../src/base/crc16.ts';
import { MiB } from '../../src/base/bytes.ts';

/** Bytes of the image. */
export const craftedSize = 64 * MiB;
const blocks = craftedSize / 1024;
const uuid = Buffer.from('00112233445566778899aabbccddeeff', 'hex');

export interface Crafted {
  readonly blocksPerGroup: number;
  readonly inodesPerGroup: number;
  /** Returns the block bitmap, inode bitmap and inode table of a group. */
  readonly places: (group: number) => readonly [number, number, number];
  readonly flags: number;
  readonly freeClusters: number;
}

export function crafted({ blocksPerGroup, inodesPerGroup, places, flags, freeClusters }: Crafted): Buffer {
  const disk = Buffer.alloc(craftedSize);
  const groups = Math.ceil((blocks - 1) / blocksPerGroup);
  const words: [number, number][] = [
    [0x00, groups * inodesPerGroup],
    [0x04, blocks],
    [0x14, 1],
    [0x20, blocksPerGroup],
    [0x24, blocksPerGroup],
    [0x28, inodesPerGroup],
    [0x38, 0x1ef53],
    [0x4c, 1],
    [0x58, 1024],
    // sparse_super2 without any copy of the superblock: flex_bg, uninit_bg.
    [0x5c, 0x200],
    [0x60, 0x200],
    [0x64, 0x10],
  ];
  for (const [at, value] of words) disk.writeUInt32LE(value, 1024 + at);
  uuid.copy(disk, 1024 + 0x68);
  for (let group = 0; group < groups; group++) {
    const at = 2048 + group * 32;
    for (const [i, place] of places(group).entries()) disk.writeUInt32LE(place, at + i * 4);
    disk.writeUInt16LE(freeClusters, at + 0x0c);
    disk.writeUInt16LE(flags, at + 0x12);
    const number = Buffer.alloc(4);
    number.writeUInt32LE(group);
    const sum = crc16(disk.subarray(at, at + 0x1e), crc16(number, crc16(uuid, 0xffff)));
    disk.writeUInt16LE(sum, at + 0x1e);
  }
  return disk;
}
