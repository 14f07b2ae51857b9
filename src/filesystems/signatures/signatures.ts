/**
 * Finds the signatures of every known type on a device. The used map needs all of them, because two on one device mean
 * that one is stale. Offsets and checks as in libblkid (superblocks/ of util-linux). Types whose used map we read have
 * their own readers: ext, xfs, swap.
 */
import type { ReadAt } from '../../block/source.ts';
import { probeExt, readExtType } from '../ext/ext.ts';
import { probeSwap } from '../swap/swap.ts';
import type { FilesystemIdentity } from '../used-map.ts';
import { labelText, uuidText } from '../uuid.ts';
import { probeXfs } from '../xfs/xfs.ts';
import { probeBootSector } from './fat.ts';
import { type Magic, containerMagics, filesystemMagics, tableMagics } from './magics.ts';
import { type Regions, placeOn, readRegions } from './regions.ts';
import { weakMagics, weakTables } from './weak-magics.ts';

export interface Signature {
  readonly identity: FilesystemIdentity;
  /** Offset of the signature's header in bytes. */
  readonly offset: number;
  /**
   * False if blkid would not name it: a damaged superblock, or a partition table. It still shows that the device may
   * hold other contents.
   */
  readonly named: boolean;
}

/**
 * Returns all signatures, in the order of blkid's preference: RAID and volume managers, encryption, then filesystems.
 * Throws DEVICE_READ_ERROR or FILESYSTEM_UNREADABLE if the device cannot be read there.
 */
export async function findSignatures(readAt: ReadAt, deviceSize: number): Promise<Signature[]> {
  const regions = await readRegions(readAt, deviceSize);
  const { head } = regions;
  const first = (identity: FilesystemIdentity | undefined, offset = 0): Signature[] =>
    identity === undefined ? [] : [{ identity, offset, named: true }];
  return [
    ...(await linuxRaid(regions)),
    ...lvm(head, deviceSize),
    ...luks(head, deviceSize),
    ...(await known(regions, containerMagics, [], true)),
    ...first(await probeBootSector(head.subarray(0, 512), readAt, deviceSize)),
    ...first(await probeSwap(readAt, deviceSize)),
    ...(await xfs(readAt, head, deviceSize)),
    ...(await ext(readAt, deviceSize)),
    ...btrfs(head, deviceSize),
    ...iso9660(head, deviceSize),
    ...squashfs(head, deviceSize),
    ...(await known(regions, filesystemMagics, weakMagics, true)),
    ...(await known(regions, tableMagics, weakTables, false)),
  ];
}

/** Returns the different types of the signatures, in their order. */
export function typesOf(signatures: readonly Signature[]): string[] {
  return [...new Set(signatures.map(({ identity }) => identity.type))];
}

function plain(type: string, offset: number, named: boolean): Signature {
  const identity = { type, uuid: undefined, label: undefined, blockSize: undefined, size: undefined };
  return { identity, offset, named };
}

/** Finds types that only have a signature here, so that a stale filesystem under them is not used. */
async function known(
  regions: Regions,
  magics: readonly Magic[],
  weak: typeof weakMagics,
  named: boolean,
): Promise<Signature[]> {
  const found: Signature[] = [];
  for (const { type, magic, at } of magics)
    for (const place of at) {
      const offset = placeOn(regions.size, place);
      const bytes = await regions.at(offset, magic.length);
      if (bytes?.toString('latin1') === magic) found.push(plain(type, offset, named));
    }
  for (const { type, find } of weak)
    for (const offset of await find(regions)) found.push(plain(type, offset, named));
  return found;
}

/** A superblock with the magic of XFS and an impossible geometry counts as a signature too. */
async function xfs(readAt: ReadAt, head: Buffer, deviceSize: number): Promise<Signature[]> {
  const identity = await probeXfs(readAt, deviceSize);
  if (identity !== undefined) return [{ identity, offset: 0, named: true }];
  return textAt(head, 0, 'XFSB') ? [plain('xfs', 0, false)] : [];
}

/** A superblock of ext with a wrong checksum counts as a signature too. */
async function ext(readAt: ReadAt, deviceSize: number): Promise<Signature[]> {
  const identity = await probeExt(readAt, deviceSize);
  if (identity !== undefined) return [{ identity, offset: 1024, named: true }];
  const type = await readExtType(readAt, deviceSize);
  return type === undefined ? [] : [plain(type, 1024, false)];
}

function textAt(buffer: Buffer, offset: number, text: string): boolean {
  return buffer.toString('latin1', offset, offset + text.length) === text;
}

/** Linux drivers/md/md.h: 0.90 and 1.0 at the end of the device, 1.1 at 0, 1.2 at 4096. */
async function linuxRaid(regions: Regions): Promise<Signature[]> {
  const deviceSize = regions.size;
  const at = async (offset: number): Promise<Buffer> => (await regions.at(offset, 256)) ?? Buffer.alloc(256);
  const identity = (uuid: string | undefined, label: string | undefined): FilesystemIdentity => ({
    type: 'linux_raid_member',
    uuid,
    label,
    blockSize: undefined,
    size: undefined,
  });

  const oldOffset = deviceSize - (deviceSize % 0x10000) - 0x10000;
  const found: Signature[] = [];
  const old = await at(oldOffset);
  const little = old.readUInt32LE(0) === raidMagic;
  if (little || old.readUInt32BE(0) === raidMagic) {
    const uuid = Buffer.alloc(16);
    for (const [i, field] of [0x14, 0x34, 0x38, 0x3c].entries())
      uuid.writeUInt32BE(little ? old.readUInt32LE(field) : old.readUInt32BE(field), i * 4);
    found.push({ identity: identity(uuidText(uuid), undefined), offset: oldOffset, named: true });
  }
  for (const offset of [deviceSize - (deviceSize % 0x1000) - 0x2000, 0, 0x1000]) {
    const sb = await at(offset);
    if (sb.readUInt32LE(0) !== raidMagic || sb.readUInt32LE(4) !== 1) continue;
    if (Number(sb.readBigUInt64LE(0x90)) * 512 !== offset) continue;
    const uuid = uuidText(sb.subarray(0x10, 0x20));
    found.push({ identity: identity(uuid, labelText(sb.subarray(0x20, 0x40))), offset, named: true });
  }
  return found;
}

const raidMagic = 0xa92b4efc;

function lvm(head: Buffer, deviceSize: number): Signature[] {
  for (let sector = 0; sector < 4; sector++) {
    const label = head.subarray(sector * 512, sector * 512 + 512);
    if (label.length < 512 || !textAt(label, 0, 'LABELONE') || !textAt(label, 0x18, 'LVM2 001')) continue;
    const id = label.toString('latin1', 0x20, 0x40);
    const uuid = [6, 4, 4, 4, 4, 4, 6].reduce<{ parts: string[]; at: number }>(
      ({ parts, at }, length) => ({ parts: [...parts, id.slice(at, at + length)], at: at + length }),
      { parts: [], at: 0 },
    );
    const identity = { type: 'LVM2_member', uuid: uuid.parts.join('-'), label: undefined };
    return [
      {
        identity: { ...identity, blockSize: undefined, size: deviceSize },
        offset: sector * 512,
        named: true,
      },
    ];
  }
  return [];
}

function luks(head: Buffer, deviceSize: number): Signature[] {
  if (head.length < 512 || !textAt(head, 0, 'LUKS\xba\xbe')) return [];
  const version = head.readUInt16BE(6);
  const identity: FilesystemIdentity = {
    type: 'crypto_LUKS',
    uuid: labelText(head.subarray(0xa8, 0xa8 + 40)),
    label: version === 2 ? labelText(head.subarray(0x18, 0x18 + 48)) : undefined,
    blockSize: undefined,
    size: deviceSize,
  };
  return [{ identity, offset: 0, named: true }];
}

function btrfs(head: Buffer, deviceSize: number): Signature[] {
  const sb = head.subarray(0x10000, 0x11000);
  if (sb.length < 0x1000 || !textAt(sb, 0x40, '_BHRfS_M')) return [];
  const identity: FilesystemIdentity = {
    type: 'btrfs',
    uuid: uuidText(sb.subarray(0x20, 0x30)),
    label: labelText(sb.subarray(0x12b, 0x22b)),
    blockSize: sb.readUInt32LE(0x90),
    size: Math.min(Number(sb.readBigUInt64LE(0xc9 + 8)), deviceSize),
  };
  return [{ identity, offset: 0x10000, named: true }];
}

function iso9660(head: Buffer, deviceSize: number): Signature[] {
  const volume = head.subarray(0x8000, 0x8800);
  if (volume.length < 0x800 || !textAt(volume, 1, 'CD001')) return [];
  const dates = [0x33e, 0x32d].map((at) => volume.toString('latin1', at, at + 16));
  const date = dates.find((text) => /^\d{16}$/.test(text) && !/^0+$/.test(text));
  const cuts = [0, 4, 6, 8, 10, 12, 14];
  const blockSize = volume.readUInt16LE(0x80);
  const identity: FilesystemIdentity = {
    type: 'iso9660',
    uuid: date && cuts.map((from, i) => date.slice(from, cuts[i + 1])).join('-'),
    label: labelText(volume.subarray(0x28, 0x48)),
    blockSize,
    size: Math.min(volume.readUInt32LE(0x50) * blockSize, deviceSize),
  };
  return [{ identity, offset: 0x8000, named: true }];
}

function squashfs(head: Buffer, deviceSize: number): Signature[] {
  if (head.length < 96 || !textAt(head, 0, 'hsqs')) return [];
  if (head.readUInt16LE(28) < 4) return [plain('squashfs3', 0, true)];
  const identity: FilesystemIdentity = {
    type: 'squashfs',
    uuid: undefined,
    label: undefined,
    blockSize: head.readUInt32LE(12),
    size: Math.min(Number(head.readBigUInt64LE(40)), deviceSize),
  };
  return [{ identity, offset: 0, named: true }];
}
