/**
 * Reads the signs of life of XFS (../signs-of-life.ts). They include the place and the last record of its log, and the
 * blocks in front of the log's head. Every mount, also a read-only one, rewrites these blocks before it returns
 * (xlog_clear_stale_blocks). So even a mount that was interrupted before it logged anything is visible. The other signs
 * are the superblock with its counters, and the headers of the allocation groups. See docs/formats/reboot.md.
 */
import type { ReadAt } from '../../block/source.ts';
import { digest, type Signs } from '../signs.ts';
import { readMetadata } from './free-space-tree.ts';
import { findHead, lastRecord, logFault, type LogReader } from './log.ts';
import { readUInt64 } from './checksum.ts';
import { parseSuperblock, superblockFault, superblockSize, type XfsSuperblock } from './superblock.ts';

/** The most blocks of 512 bytes that a mount clears in front of the head: eight records of 256 KiB. */
const clearedBlocks = (8 * 256 * 1024) / 512;
/** The most groups whose headers are read. A filesystem that was grown a hundredfold has more. */
const mostGroups = 1024;

/** Returns the signs, or why this filesystem has no reliable ones. Throws the errors of `readAt`. */
export async function xfsSigns(readAt: ReadAt, deviceSize: number): Promise<Signs | string> {
  if (deviceSize < superblockSize) return 'it has no superblock';
  const sb = parseSuperblock(await readMetadata(readAt, 0, Math.min(512, deviceSize), 'XFS superblock'));
  if (sb === undefined) return 'it has no superblock';
  const sector = await readMetadata(readAt, 0, sb.sectorSize, 'XFS superblock');
  const fault = superblockFault(sb, sector, deviceSize);
  if (fault !== undefined) return fault;
  if (sb.realtimeBlocks > 0) return 'it has a realtime section on another device';
  const { logOffset } = sb;
  if (logOffset === undefined) return 'its log is on another device';
  const log: LogReader = {
    blocks: sb.logSize / 512,
    read: (block, count) => readMetadata(readAt, logOffset + block * 512, count * 512, 'XFS log'),
    uuid: sb.rawUuid,
    version2: sb.logVersion2,
  };
  const dirty = await logFault(log);
  if (dirty !== undefined) return dirty;
  const head = await findHead(log);
  if (typeof head === 'string') return head;
  const record = await lastRecord(log, head);
  if (record === undefined) return `no log record ends at the head of the log, block ${head}`;
  return {
    'log head': `block ${head % log.blocks} after cycle ${record.cycle}`,
    'log in front of its head': digest([await around(log, head, clearedBlocks)]),
    'last log record': digest([await log.read(record.block, 1)]),
    inodes: `${readUInt64(sector, 128)}, ${readUInt64(sector, 136)} free`,
    'free blocks': String(readUInt64(sector, 144)),
    superblock: digest([sector]),
    'allocation group headers': digest(await groupHeaders(readAt, sb)),
  };
}

/** Reads `count` blocks from `head` on, around the end of the log; never more than the log has. */
async function around(log: LogReader, head: number, count: number): Promise<Buffer> {
  const start = head % log.blocks;
  const first = Math.min(count, log.blocks - start);
  const rest = Math.min(count - first, start);
  const parts = [await log.read(start, first), ...(rest > 0 ? [await log.read(0, rest)] : [])];
  return Buffer.concat(parts);
}

/** Reads the first four sectors of each group: superblock, free space, inodes, free list. */
async function groupHeaders(readAt: ReadAt, sb: XfsSuperblock): Promise<Buffer[]> {
  const headers: Buffer[] = [];
  for (let group = 0; group < Math.min(sb.agCount, mostGroups); group++) {
    const offset = group * sb.agBlocks * sb.blockSize;
    headers.push(await readMetadata(readAt, offset, 4 * sb.sectorSize, `XFS group ${group}`));
  }
  return headers;
}
