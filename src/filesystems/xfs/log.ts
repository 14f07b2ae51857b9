/**
 * Decides whether the log of an XFS filesystem that is not mounted still holds records to be replayed. It finds the
 * log's head by the cycle numbers and looks for an unmount record that ends there. A log that is not clearly clean
 * counts as dirty. Pure over `read`; see docs/formats/xfs.md and the kernel's xfs_log_recover.c.
 */
import { readUInt64 } from './checksum.ts';
import { logsOnlySuperblock } from './covering-record.ts';
import type { LogRecord } from './log-record.ts';

export interface LogReader {
  /** Length of the log in blocks of 512 bytes. */
  readonly blocks: number;
  /** Reads blocks of 512 bytes of the log. */
  readonly read: (block: number, count: number) => Promise<Buffer>;
  /** The filesystem's UUID as log records carry it. */
  readonly uuid: Buffer;
  /** True if record headers may take several blocks. */
  readonly version2: boolean;
}

const blockSize = 512;
const recordMagic = 0xfeedbabe;
const unmountFlag = 0x20;
const headerCycleSize = 32 * 1024;
/** Eight in-core logs of 256 KiB: no more blocks can be on the way to the disk at once. */
const inFlightBlocks = (8 * 256 * 1024) / blockSize;
/** A record of 256 KiB with its headers. */
const longestRecord = (256 * 1024) / blockSize + 8;

/** Returns undefined if the log is clean, else a phrase that says why not. */
export async function logFault(log: LogReader): Promise<string | undefined> {
  if (log.blocks < 16) return `the log of ${log.blocks} blocks is too short`;
  const head = await findHead(log);
  if (typeof head === 'string') return head;
  const record = await lastRecord(log, head);
  if (record === undefined) return `no log record ends at the head of the log, block ${head}`;
  const { uuid } = record;
  if (!uuid.equals(log.uuid) && uuid.some((byte) => byte !== 0))
    return 'the log belongs to another filesystem (UUID differs)';
  if (record.operations === 1) {
    const data = await log.read((record.block + record.headerBlocks) % log.blocks, 1);
    if ((data.readUInt8(9) & unmountFlag) !== 0) return undefined;
  }
  return (await isCovered(log, record, head)) ? undefined : dirty;
}

/** More blocks than two covering records take. */
const longestCover = 64;

/** Returns whether the superblock is all that would be replayed, from the tail to the head. */
async function isCovered(log: LogReader, last: LogRecord, head: number): Promise<boolean> {
  let left = (head - last.tailBlock + log.blocks) % log.blocks;
  if (left === 0 || left > longestCover || last.tailBlock >= log.blocks) return false;
  for (let block = last.tailBlock; left > 0;) {
    const header = await log.read(block, 1);
    const record = parseRecord(header, block, log.version2);
    if (record === undefined) return false;
    const length = record.headerBlocks + record.dataBlocks;
    const cycle = block < last.tailBlock ? last.tailCycle + 1 : last.tailCycle;
    if (record.cycle !== cycle || record.dataBlocks === 0) return false;
    if (length > left || block + length > log.blocks) return false;
    const data = await log.read(block + record.headerBlocks, record.dataBlocks);
    if (!logsOnlySuperblock(record, header, data)) return false;
    left -= length;
    block = (block + length) % log.blocks;
  }
  return true;
}

const dirty = 'the log is dirty (it was not unmounted cleanly, or is in use)';

/** Returns the cycle in which this block of the log was written; 0 if it never was. */
function cycleOf(block: Buffer, at = 0): number {
  const word = block.readUInt32BE(at);
  return word === recordMagic ? block.readUInt32BE(at + 4) : word;
}

/** Reads a record header. Returns undefined if `data` does not begin with one. */
function parseRecord(data: Buffer, block: number, version2: boolean): LogRecord | undefined {
  if (data.length < blockSize || data.readUInt32BE(0) !== recordMagic) return undefined;
  const size = data.readUInt32BE(320);
  const large = version2 && (data.readUInt32BE(8) & 2) !== 0 && size > headerCycleSize;
  const tail = readUInt64(data, 24);
  return {
    block,
    cycle: data.readUInt32BE(4),
    headerBlocks: large ? Math.ceil(size / headerCycleSize) : 1,
    dataBlocks: Math.ceil(data.readUInt32BE(12) / blockSize),
    operations: data.readUInt32BE(40),
    tailCycle: Math.floor(tail / 2 ** 32),
    tailBlock: tail % 2 ** 32,
    uuid: data.subarray(304, 320),
  };
}

/**
 * Returns the block that will be written next, 1 to `blocks` (the last is the wrap). Returns a phrase if the cycle
 * numbers before it have holes, as after a crash.
 */
export async function findHead(log: LogReader): Promise<number | string> {
  const cycleAt = async (block: number): Promise<number> => cycleOf(await log.read(block, 1));
  const first = await cycleAt(0);
  const last = await cycleAt(log.blocks - 1);
  if (first === 0) return 'the log was never written';
  if (first !== last && last !== first - 1)
    return `the log begins in cycle ${first} and ends in cycle ${last}`;
  let head = log.blocks;
  if (first !== last) {
    // Searches the first block of the older cycle by halves.
    for (let low = 0; head - low > 1;) {
      const middle = Math.floor((low + head) / 2);
      if ((await cycleAt(middle)) === first) low = middle;
      else head = middle;
    }
  }
  const before = Math.min(head, inFlightBlocks);
  const hole =
    (await firstOtherCycle(log, head - before, before, first)) ??
    (await firstOtherCycle(log, ...wrapped(log, head, before), last));
  return hole === undefined ? head : `the log has a hole at block ${hole} before its head at ${head}`;
}

/** Returns the part of the window of `inFlightBlocks` before the head that lies at the physical end of the log. */
function wrapped(log: LogReader, head: number, before: number): [number, number] {
  const count = Math.min(inFlightBlocks - before, log.blocks - head);
  return [log.blocks - count, count];
}

async function firstOtherCycle(
  log: LogReader,
  start: number,
  count: number,
  cycle: number,
): Promise<number | undefined> {
  if (count === 0) return undefined;
  const data = await log.read(start, count);
  for (let i = 0; i < count; i++) if (cycleOf(data, i * blockSize) !== cycle) return start + i;
  return undefined;
}

/** Returns the record that ends exactly at the head; undefined if there is none. */
export async function lastRecord(log: LogReader, head: number): Promise<LogRecord | undefined> {
  const length = Math.min(longestRecord, log.blocks);
  const start = (head - length + log.blocks) % log.blocks;
  const tail = Math.min(length, log.blocks - start);
  const data = Buffer.concat([
    await log.read(start, tail),
    ...(tail < length ? [await log.read(0, length - tail)] : []),
  ]);
  for (let at = length - 1; at >= 0; at--) {
    const record = parseRecord(
      data.subarray(at * blockSize, (at + 1) * blockSize),
      (start + at) % log.blocks,
      log.version2,
    );
    if (record !== undefined)
      return at + record.headerBlocks + record.dataBlocks === length ? record : undefined;
  }
  return undefined;
}
