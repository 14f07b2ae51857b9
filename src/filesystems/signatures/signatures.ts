/**
 * What a device holds, by the signatures of every type we know; whoever needs the used map must know of all of
 * them, for two on one device mean that one is stale. Offsets and checks as in libblkid (superblocks/ of
 * util-linux). Types whose used map we read have readers of their own: ext, xfs, swap.
 */
import type { ReadAt } from '../../block/source.ts';
import { probeExt } from '../ext/ext.ts';
import { probeSwap } from '../swap/swap.ts';
import type { FilesystemIdentity } from '../used-map.ts';
import { labelText, uuidText } from '../uuid.ts';
import { probeXfs } from '../xfs/xfs.ts';
import { probeBootSector } from './fat.ts';

export interface Signature {
  readonly identity: FilesystemIdentity;
  /** Byte where the signature's header lies. */
  readonly offset: number;
}

/** Bytes from the start that hold all headers but those at the end of the device. */
const headLength = 0x11000;

/**
 * All signatures, in the order of blkid's preference: RAID and volume managers, encryption, then filesystems.
 * Throws DEVICE_READ_ERROR or FILESYSTEM_UNREADABLE where the device cannot be read there.
 */
export async function findSignatures(readAt: ReadAt, deviceSize: number): Promise<Signature[]> {
  const head = Buffer.from(await readAt(0, Math.min(headLength, deviceSize)));
  const first = (identity: FilesystemIdentity | undefined, offset = 0): Signature[] =>
    identity === undefined ? [] : [{ identity, offset }];
  return [
    ...(await linuxRaid(head, readAt, deviceSize)),
    ...lvm(head, deviceSize),
    ...luks(head, deviceSize),
    ...first(await probeBootSector(head.subarray(0, 512), readAt, deviceSize)),
    ...first(await probeSwap(readAt, deviceSize)),
    ...first(await probeXfs(readAt, deviceSize)),
    ...first(await probeExt(readAt, deviceSize), 1024),
    ...btrfs(head, deviceSize),
    ...iso9660(head, deviceSize),
    ...squashfs(head, deviceSize),
    ...knownByMagic(head),
  ];
}

function textAt(buffer: Buffer, offset: number, text: string): boolean {
  return buffer.toString('latin1', offset, offset + text.length) === text;
}

/** Linux drivers/md/md.h: 0.90 and 1.0 at the end of the device, 1.1 at 0, 1.2 at 4096. */
async function linuxRaid(head: Buffer, readAt: ReadAt, deviceSize: number): Promise<Signature[]> {
  const at = async (offset: number): Promise<Buffer> =>
    offset >= 0 && offset + 256 <= deviceSize ? Buffer.from(await readAt(offset, 256)) : Buffer.alloc(256);
  const identity = (uuid: string | undefined, label: string | undefined): FilesystemIdentity => ({
    type: 'linux_raid_member',
    uuid,
    label,
    blockSize: undefined,
    size: undefined,
  });

  const oldOffset = deviceSize - (deviceSize % 0x10000) - 0x10000;
  const old = await at(oldOffset);
  const little = old.readUInt32LE(0) === raidMagic;
  if (little || old.readUInt32BE(0) === raidMagic) {
    const uuid = Buffer.alloc(16);
    for (const [i, field] of [0x14, 0x34, 0x38, 0x3c].entries())
      uuid.writeUInt32BE(little ? old.readUInt32LE(field) : old.readUInt32BE(field), i * 4);
    return [{ identity: identity(uuidText(uuid), undefined), offset: oldOffset }];
  }
  for (const offset of [deviceSize - (deviceSize % 0x1000) - 0x2000, 0, 0x1000]) {
    const sb =
      offset >= 0 && offset + 256 <= head.length ? head.subarray(offset, offset + 256) : await at(offset);
    if (sb.readUInt32LE(0) !== raidMagic || sb.readUInt32LE(4) !== 1) continue;
    if (Number(sb.readBigUInt64LE(0x90)) * 512 !== offset) continue;
    const uuid = uuidText(sb.subarray(0x10, 0x20));
    return [{ identity: identity(uuid, labelText(sb.subarray(0x20, 0x40))), offset }];
  }
  return [];
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
    return [{ identity: { ...identity, blockSize: undefined, size: deviceSize }, offset: sector * 512 }];
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
  return [{ identity, offset: 0 }];
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
  return [{ identity, offset: 0x10000 }];
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
  return [{ identity, offset: 0x8000 }];
}

function squashfs(head: Buffer, deviceSize: number): Signature[] {
  if (head.length < 96 || !textAt(head, 0, 'hsqs') || head.readUInt16LE(28) < 4) return [];
  const identity: FilesystemIdentity = {
    type: 'squashfs',
    uuid: undefined,
    label: undefined,
    blockSize: head.readUInt32LE(12),
    size: Math.min(Number(head.readBigUInt64LE(40)), deviceSize),
  };
  return [{ identity, offset: 0 }];
}

/** Types that we tell by their magic alone, so that a stale filesystem under them is not taken as true. */
function knownByMagic(head: Buffer): Signature[] {
  return magics
    .filter(({ offset, magic }) => offset + magic.length <= head.length && textAt(head, offset, magic))
    .map(({ type, offset }) => ({
      identity: { type, uuid: undefined, label: undefined, blockSize: undefined, size: undefined },
      offset,
    }));
}

const magics = [
  {
    type: 'bcache',
    offset: 0x1018,
    magic: '\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81',
  },
  { type: 'f2fs', offset: 0x400, magic: '\x10\x20\xf5\xf2' },
  { type: 'erofs', offset: 0x400, magic: '\xe2\xe1\xf5\xe0' },
  { type: 'reiserfs', offset: 0x10034, magic: 'ReIsEr' },
  { type: 'jfs', offset: 0x8000, magic: 'JFS1' },
  { type: 'DM_snapshot_cow', offset: 0, magic: 'SnAp' },
  { type: 'DM_verity_hash', offset: 0, magic: 'verity\0\0' },
  { type: 'DM_integrity', offset: 0, magic: 'integrt\0' },
  { type: 'BitLocker', offset: 3, magic: '-FVE-FS-' },
] as const;
