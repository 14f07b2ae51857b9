/**
 * The place of the record of a shutdown: a file, or a block device reserved for it. A block device can be written when
 * the root filesystem no longer can. A device is written only if `prepareRecordDevice` has prepared it, so that a
 * mistake in the configuration does not overwrite a disk. See docs/formats/reboot.md.
 */
import { constants } from 'node:fs';
import { type FileHandle, open, readFile, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { alignUp } from '../../base/bytes.ts';
import { replaceFile, syncDirectory } from '../../base/durable.ts';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { makeDirectory, unlessAbsent } from '../../base/files.ts';
import { alignedBuffer } from '../../linux/aligned.ts';
import { blockDeviceSize } from '../../linux/ioctl.ts';
import { encodeNothing, headerSize, markUsed, recordLength } from './shutdown-record.ts';

/** A multiple of every sector size. The first piece holds the header. */
const piece = 4096;

/** Returns true for a device, false for a file. A path in /dev that does not exist (yet) is never a file. */
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

/** Replaces the earlier record, durably. Throws FILE_ERROR. */
export async function writeRecord(path: string, record: Buffer): Promise<void> {
  try {
    if (await isDevice(path)) await writeToDevice(path, record);
    else await writeToFile(path, record);
  } catch (thrown) {
    throw failure(path, 'written', thrown);
  }
}

/** Reads the record; returns undefined if there is none. Waits for a device to appear. Throws FILE_ERROR. */
export async function readRecord(
  path: string,
  options: { readonly waitMs?: number } = {},
): Promise<Buffer | undefined> {
  try {
    return (await isDevice(path, options.waitMs))
      ? await readFromDevice(path)
      : await unlessAbsent(path, readFile(path));
  } catch (thrown) {
    throw failure(path, 'read', thrown);
  }
}

/**
 * Writes the ID of the boot that uses the record into its header, durably. `record` is the record as read from there.
 * Throws FILE_ERROR.
 */
export async function markRecordUsed(path: string, record: Buffer, bootId: string): Promise<void> {
  const marked = markUsed(record, bootId);
  try {
    if (await isDevice(path)) {
      const device = await openDevice(path);
      try {
        await checkPrepared(device, path);
        await writePieces(device, 0, marked.subarray(0, piece));
      } finally {
        await device.close();
      }
    } else {
      const file = await open(path, 'r+');
      try {
        await file.write(marked, 0, headerSize, 0);
        await file.sync();
      } finally {
        await file.close();
      }
    }
  } catch (thrown) {
    throw failure(path, 'marked as used', thrown);
  }
}

/** Removes the record, if there is one. The removal is durable when the promise resolves. Throws FILE_ERROR. */
export async function removeRecord(path: string): Promise<void> {
  try {
    if (await isDevice(path)) {
      const device = await openDevice(path);
      try {
        await checkPrepared(device, path);
        await writePieces(device, 0, encodeNothing());
      } finally {
        await device.close();
      }
    } else if (await exists(path)) {
      await rm(path);
      await syncDirectory(dirname(path));
    }
  } catch (thrown) {
    throw failure(path, 'removed', thrown);
  }
}

/** Prepares a block device for records. Its content is lost. Throws DEVICE_BUSY if the device seems to hold data. */
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
  await makeDirectory(dirname(path));
  await replaceFile(path, record);
}

async function exists(path: string): Promise<boolean> {
  return (await unlessAbsent(path, stat(path))) !== undefined;
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
    // The header is written last: an interruption before leaves no record.
    await writePieces(device, 0, encodeNothing());
    if (record.length > piece) await writePieces(device, piece, record.subarray(piece));
    await writePieces(device, 0, record.subarray(0, piece));
  } finally {
    await device.close();
  }
}

async function readFromDevice(path: string): Promise<Buffer | undefined> {
  const device = await open(path, constants.O_RDONLY | constants.O_DIRECT);
  try {
    const length = await checkPrepared(device, path);
    const size = blockDeviceSize(device.fd);
    return length <= headerSize || length > size ? undefined : await readPieces(device, length);
  } finally {
    await device.close();
  }
}

/** Opens exclusively, so that the kernel refuses a device that is mounted or belongs to another device. */
function openDevice(path: string): Promise<FileHandle> {
  return open(path, constants.O_RDWR | constants.O_EXCL | constants.O_DIRECT);
}

/** Returns the length in bytes of the present record. */
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
