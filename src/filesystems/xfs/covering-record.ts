/**
 * Recognizes the log records that a freeze leaves behind ("covering": xfs_log_cover in the kernel): one transaction
 * that holds only the superblock. If only such records are left to be replayed, the free-space trees on disk are up to
 * date, as in an image taken of a frozen filesystem. Any record with another form does not count as a covering record.
 * Pure; the format is in docs/formats/xfs.md.
 */
import type { LogRecord } from './log-record.ts';

const blockSize = 512;
const clientTransaction = 0x69;
const flagStart = 0x01;
const flagCommit = 0x02;
const transactionMagic = 0x5452414e;
const bufferItem = 0x123c;
const littleEndianLinux = 1;

/** `header` is the record's first block. `data` holds its `dataBlocks` blocks as they are on disk. */
export function logsOnlySuperblock(record: LogRecord, header: Buffer, data: Buffer): boolean {
  // Cycle numbers overwrite the first word of each block. The header has room for 64 of the words.
  if (record.dataBlocks > 64 || header.readUInt32BE(300) !== littleEndianLinux) return false;
  const bytes = Buffer.from(data);
  for (let i = 0; i < record.dataBlocks; i++) header.copy(bytes, i * blockSize, 44 + i * 4, 48 + i * 4);
  const regions = transactionRegions(bytes, record.operations);
  if (regions === undefined) return false;
  const [first, ...items] = regions;
  if (first?.length !== 16 || first.readUInt32LE(0) !== transactionMagic) return false;
  for (let i = 0; i < items.length;) {
    const format = items[i]!;
    if (format.length < 24 || format.readUInt16LE(0) !== bufferItem || format.readBigInt64LE(8) !== 0n)
      return false;
    i += Math.max(1, format.readUInt16LE(2));
  }
  return items.length > 0;
}

/** Returns the regions between start and commit of the one transaction of a record; undefined for any other record. */
function transactionRegions(bytes: Buffer, operations: number): Buffer[] | undefined {
  const regions: Buffer[] = [];
  let at = 0;
  for (let i = 0; i < operations; i++) {
    if (at + 12 > bytes.length || bytes.readUInt8(at + 8) !== clientTransaction) return undefined;
    const length = bytes.readUInt32BE(at + 4);
    const wanted = i === 0 ? flagStart : i === operations - 1 ? flagCommit : 0;
    if (bytes.readUInt8(at + 9) !== wanted || at + 12 + length > bytes.length) return undefined;
    if (wanted === 0) regions.push(bytes.subarray(at + 12, at + 12 + length));
    else if (length !== 0) return undefined;
    at += 12 + length;
  }
  return regions;
}
