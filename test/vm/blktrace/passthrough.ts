/** Sends a SCSI WRITE(10) of one block that bypasses the block layer: SG_IO of include/scsi/sg.h. */
import { closeSync, openSync } from 'node:fs';
import { addressOf, checked, declare } from '../../../src/linux/libc.ts';

const SG_IO = 0x2285;
const SG_DXFER_TO_DEV = -2;

const ioctl = declare<[fd: number, request: number, header: Uint8Array]>('ioctl', 'int', [
  'int',
  'uint64',
  'void *',
]);

export function writePastBlockLayer(path: string, sector: number): void {
  const data = Buffer.alloc(512, 0x5a);
  const command = Buffer.from([0x2a, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
  command.writeUInt32BE(sector, 2);
  const header = Buffer.alloc(88);
  header.writeInt32LE('S'.charCodeAt(0), 0);
  header.writeInt32LE(SG_DXFER_TO_DEV, 4);
  header.writeUInt8(command.length, 8);
  header.writeUInt32LE(data.length, 12);
  header.writeBigUInt64LE(addressOf(data), 16);
  header.writeBigUInt64LE(addressOf(command), 24);
  header.writeUInt32LE(10_000, 40);
  const fd = openSync(path, 'r+');
  try {
    checked(ioctl, [fd, SG_IO, header], 'ioctl SG_IO', path);
  } finally {
    closeSync(fd);
  }
  if (header.readUInt8(64) !== 0) throw new Error(`SG_IO: status ${header.readUInt8(64)}`);
}
