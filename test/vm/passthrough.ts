/**
 * Writes to a SCSI disk and bypasses the block layer: SG_IO with WRITE(10) (include/scsi/sg.h, struct
 * sg_io_hdr).
 */
import { closeSync, openSync } from 'node:fs';
import { addressOf, checked, declare } from '../../src/linux/libc.ts';

const SG_IO = 0x2285;
const ioctl = declare<[fd: number, request: number, argument: Uint8Array]>('ioctl', 'int', [
  'int',
  'uint64',
  'void *',
]);

/** Writes 4096 bytes at a sector of 512. */
export function sendWrite(path: string, sector: number): void {
  const data = Buffer.alloc(4096, 0xab);
  const command = Buffer.alloc(10);
  const sense = Buffer.alloc(64);
  const header = Buffer.alloc(88);
  command[0] = 0x2a;
  command.writeUInt32BE(sector, 2);
  command.writeUInt16BE(8, 7);
  header.writeInt32LE('S'.charCodeAt(0), 0);
  header.writeInt32LE(-2, 4);
  header[8] = command.length;
  header[9] = sense.length;
  header.writeUInt32LE(data.length, 12);
  header.writeBigUInt64LE(addressOf(data), 16);
  header.writeBigUInt64LE(addressOf(command), 24);
  header.writeBigUInt64LE(addressOf(sense), 32);
  header.writeUInt32LE(20_000, 40);
  const fd = openSync(path, 'r+');
  try {
    checked(ioctl, [fd, SG_IO, header], 'ioctl SG_IO', path);
  } finally {
    closeSync(fd);
  }
  if (header[64] !== 0) throw new Error(`${path}: the disk answered the command with status ${header[64]}`);
}
