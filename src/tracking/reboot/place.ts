/**
 * Where the record of a shutdown lies: a file, or a block device of its own, which can be written when the root
 * filesystem no longer can. A device is written only where `prepareRecordDevice` has been before, so that no slip of a
 * configuration costs a disk. docs/formats/reboot.md.
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { alignUp } from '../../base/bytes.ts';
import { syncDirectory } from '../../base/durable.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { alignedBuffer } from '../../linux/aligned.ts';
import { blockDeviceSize } from '../../linux/ioctl.ts';
import { encodeNothing, headerSize, recordLength } from './record.ts';

/** Multiple of every sector size; what is in the first of them is the header. */
const piece = 4096;

/** True for a device, false for a file. A name in /dev that is not there (yet) is never a file. */
async function isDevice(path: string, waitMs = 0): Promise<boolean> {
  for (const deadline = performance.now() + waitMs; ;) {
    const found = await stat(path).catch(() => undefined);
    if (found?.isBlockDevice() === true) return true;
    if (!path.startsWith('/dev/')) return false;
    if (performance.now() >= deadline)
      throw new AgentError('FILE_ERROR', `The place of the record of the shutdown, ${path}, is not there`, {
        hint: 'look at reboot_record in the configuration of dattod',
      });
    await sleep(100);
  }
}

/** Puts the record in the place of the one before, durably. Throws FILE_ERROR. */
export async function writeRecord(path: string, record: Buffer): Promise<void> {
  try {
    if (await isDevice(path)) await writeToDevice(path, record);
    else await writeToFile(path, record);
  } catch (thrown) {
    throw failure(path, 'written', thrown);
  }
}

/**
 * Takes the record from its place: it is gone, durably, when this resolves. Undefined where there is none. A device
 * is waited for. Throws FILE_ERROR.
 */
export async function consumeRecord(
  path: string,
  options: { readonly waitMs?: number } = {},
): Promise<Buffer | undefined> {
  try {
    return (await isDevice(path, options.waitMs)) ? await consumeFromDevice(path) : await consumeFile(path);
  } catch (thrown) {
    throw failure(path, 'taken', thrown);
  }
}

/** Makes a block device a place for records. What it held is lost. Throws DEVICE_BUSY where it seems to hold something. */
export async function prepareRecordDevice(path: string): Promise<void> {
  const device = await openDevice(path);
  try {
    const length = Math.min(64 * piece, blockDeviceSize(device.fd));
    const begin = await readPieces(device, length);
    const ours = typeof recordLength(begin) === 'number';
    if (!ours && begin.some((byte) => byte !== 0))
      throw new AgentError('DEVICE_BUSY', `${path} does not begin with zeros, so it may hold something`, {
        hint: `if it does not, clear it: wipefs --all ${path}; dd if=/dev/zero of=${path} bs=1M count=1`,
      });
    await writePieces(device, 0, encodeNothing());
  } finally {
    await device.close();
  }
}

async function writeToFile(path: string, record: Buffer): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(`${path}.new`, 'w', 0o600);
  try {
    await file.writeFile(record);
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(`${path}.new`, path);
  await syncDirectory(dirname(path));
}

async function consumeFile(path: string): Promise<Buffer | undefined> {
  let file: FileHandle;
  try {
    file = await open(path, 'r');
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
  try {
    const record = await file.readFile();
    await rm(path);
    await syncDirectory(dirname(path));
    return record;
  } finally {
    await file.close();
  }
}

async function writeToDevice(path: string, record: Buffer): Promise<void> {
  const device = await openDevice(path);
  try {
    await checkPrepared(device, path);
    const size = blockDeviceSize(device.fd);
    if (alignUp(record.length, piece) > size)
      throw new AgentError('FILE_ERROR', `${path} has ${size} bytes, and the record needs ${record.length}`, {
        hint: 'give reboot_record a larger partition',
      });
    // The header last: a cut before leaves no record.
    await writePieces(device, 0, encodeNothing());
    if (record.length > piece) await writePieces(device, piece, record.subarray(piece));
    await writePieces(device, 0, record.subarray(0, piece));
  } finally {
    await device.close();
  }
}

async function consumeFromDevice(path: string): Promise<Buffer | undefined> {
  const device = await openDevice(path);
  try {
    const length = await checkPrepared(device, path);
    const size = blockDeviceSize(device.fd);
    const record = length <= headerSize || length > size ? undefined : await readPieces(device, length);
    await writePieces(device, 0, encodeNothing());
    return record;
  } finally {
    await device.close();
  }
}

/** Exclusively, so that what is mounted or belongs to another device is refused by the kernel. */
function openDevice(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDWR | constants.O_EXCL | constants.O_DIRECT);
}

/** Bytes of the record that is there. */
async function checkPrepared(device: FileHandle, path: string): Promise<number> {
  const length = recordLength(await readPieces(device, headerSize));
  if (typeof length === 'number') return length;
  throw new AgentError('FILE_ERROR', `${path} is no place for records: ${length}`, {
    hint: `prepare it with 'dattod reboot prepare ${path}', which overwrites what it holds`,
  });
}

async function readPieces(device: FileHandle, length: number): Promise<Buffer> {
  const bytes = alignedBuffer(alignUp(length, piece));
  for (let at = 0; at < bytes.length;) {
    const { bytesRead } = await device.read(bytes, at, bytes.length - at, at);
    if (bytesRead === 0) break;
    at += bytesRead;
  }
  return Buffer.from(bytes.buffer, bytes.byteOffset, length);
}

async function writePieces(device: FileHandle, offset: number, data: Buffer): Promise<void> {
  const bytes = alignedBuffer(alignUp(data.length, piece));
  bytes.fill(0);
  bytes.set(data);
  for (let at = 0; at < bytes.length;)
    at += (await device.write(bytes, at, bytes.length - at, offset + at)).bytesWritten;
  await device.sync();
}

function failure(path: string, what: string, thrown: unknown): AgentError {
  if (thrown instanceof AgentError) return thrown;
  return new AgentError(
    'FILE_ERROR',
    `The record of the shutdown, ${path}, cannot be ${what}: ${errnoCode(thrown) ?? String(thrown)}`,
    {
      cause: thrown,
    },
  );
}
