/**
 * Reads the signs of life of ext3 and ext4 (../signs-of-life.ts): the superblock, the group descriptors and the
 * journal's superblock. A mount for writing first changes the superblock and waits until it is on disk
 * (ext4_setup_super: mount count and time). Offsets: Linux Documentation/filesystems/ext4/super.rst and journal.rst;
 * docs/formats/reboot.md.
 */
import type { ReadAt } from '../../block/source.ts';
import { digest, type Signs } from '../signs.ts';
import { compat, incompat, roCompat } from './features.ts';
import { readTableBlocks } from './descriptors.ts';
import {
  type ExtSuperblock,
  parseSuperblock,
  superblockLength,
  superblockOffset,
  superblockProblem,
} from './superblock.ts';

const stateErrors = 2;
const journalMagic = 0xc03b3998;
const extentMagic = 0xf30a;

/** Returns the signs, or why this filesystem has no reliable ones. Throws the errors of `readAt`. */
export async function extSigns(readAt: ReadAt, deviceSize: number): Promise<Signs | string> {
  if (deviceSize < superblockOffset + superblockLength) return 'it has no superblock';
  const bytes = await readAt(superblockOffset, superblockLength);
  const raw = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const sb = parseSuperblock(raw);
  if (sb === undefined) return 'it has no superblock';
  const problem = superblockProblem(sb, deviceSize, 'idle') ?? unsettled(sb, raw);
  if (problem !== undefined) return problem;
  const journal = await journalSuperblock(readAt, sb, raw, deviceSize);
  if (typeof journal === 'string') return journal;
  // s_start: the beginning of the log; 0 if it is empty.
  if (journal.readUInt32BE(0x1c) !== 0) return 'its journal is not empty';
  const tables = await readTableBlocks(sb, readAt, 0, sb.descriptorBlocks);
  return {
    'mount count': String(raw.readUInt16LE(0x34)),
    'mount time': time(raw, 0x2c, 0x275),
    'write time': time(raw, 0x30, 0x274),
    'kilobytes written': String(raw.readBigUInt64LE(0x178)),
    'journal sequence': String(journal.readUInt32BE(0x18)),
    superblock: digest([steady(raw)]),
    'group descriptors': digest(tables),
    'journal superblock': digest([journal]),
  };
}

/** Returns the superblock without its checksum and without the fields that are signs of their own. */
function steady(raw: Buffer): Buffer {
  const bytes = Buffer.from(raw);
  for (const [offset, length] of [...writeTimeFields, kilobytesField, [0x3fc, 4]] as const)
    bytes.fill(0, offset, offset + length);
  return bytes;
}

/** s_wtime and its high byte; s_kbytes_written. */
const writeTimeFields = [
  [0x30, 4],
  [0x274, 1],
] as const;
const kilobytesField = [0x178, 8] as const;
/** e2fsck counts its own writes: 4 or 5 KiB seen (1.47), with the superblock and the journal's. */
const quickLookKilobytes = 8;

/**
 * Returns whether the only differences are those of an `e2fsck -p` that leaves a clean filesystem unchecked. Every boot
 * runs this before it mounts the root filesystem. It writes the superblock with another write time and slightly more
 * kilobytes written, and the journal's superblock unchanged. `from`: when this boot began, milliseconds since 1970.
 */
export function isQuickLook(before: Signs, now: Signs, from: number): boolean {
  for (const name of new Set([...Object.keys(before), ...Object.keys(now)]))
    if (before[name] !== now[name] && name !== 'write time' && name !== 'kilobytes written') return false;
  const more = Number(now['kilobytes written']) - Number(before['kilobytes written']);
  const at = Date.parse(now['write time'] ?? '');
  // Two seconds of tolerance: the clock may have been adjusted slightly in the meantime.
  return more >= 0 && more <= quickLookKilobytes && at >= from - 2000 && at <= Date.now() + 2000;
}

/** The bytes that such a check writes. */
export const quickLookWrites = { offset: superblockOffset, length: superblockLength } as const;

/**
 * Returns why the kernel may write to the filesystem without a mount for writing, or with one that no superblock shows.
 */
function unsettled(sb: ExtSuperblock, raw: Buffer): string | undefined {
  if (!(sb.features.compat & compat.has_journal))
    return 'it has no journal, and drivers that know none need not mark a mount';
  if (sb.externalJournal !== undefined) return 'its journal is on another device';
  if (sb.state & stateErrors) return 'the kernel has seen errors in it (run e2fsck)';
  if (raw.readUInt32LE(0xe8) !== 0 || sb.features.roCompat & roCompat.orphan_present)
    return 'files that were deleted while open are still to be cleaned up in it';
  if (sb.features.incompat & incompat.mmp)
    return 'its protection against a second mount (mmp) writes at any time';
  return undefined;
}

/** Finds the journal by the superblock's copy of its inode (s_jnl_blocks): an extent, or a list of blocks. */
async function journalSuperblock(
  readAt: ReadAt,
  sb: ExtSuperblock,
  raw: Buffer,
  deviceSize: number,
): Promise<Buffer | string> {
  const lost = 'its superblock does not say where its journal is';
  if (raw.readUInt8(0xfd) !== 1) return lost;
  const map = raw.subarray(0x10c, 0x10c + 60);
  let block = map.readUInt32LE(0);
  if (map.readUInt16LE(0) === extentMagic) {
    // Depth 0, at least one extent, and the first begins at block 0 of the journal.
    if (map.readUInt16LE(6) !== 0 || map.readUInt16LE(2) === 0 || map.readUInt32LE(12) !== 0) return lost;
    block = map.readUInt16LE(18) * 2 ** 32 + map.readUInt32LE(20);
  }
  const offset = block * sb.blockSize;
  if (block === 0 || offset + 1024 > deviceSize) return lost;
  const bytes = await readAt(offset, 1024);
  const journal = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return journal.readUInt32BE(0) === journalMagic ? journal : lost;
}

/** Formats seconds since 1970, 40 bits in two places. */
function time(raw: Buffer, low: number, high: number): string {
  const seconds = raw.readUInt32LE(low) + raw.readUInt8(high) * 2 ** 32;
  return seconds === 0 ? 'never' : new Date(seconds * 1000).toISOString();
}
