/**
 * The record of a mount: all its parts, written before each step. So the mount can be removed even if its processes died.
 * The file is `RUN_DIRECTORY/mounts/ID/record.json`, beside the socket and the directory of the FUSE mount. It contains no
 * secrets.
 */
import { readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import { makeDirectory, unlessAbsent, writingAsync } from '../../base/files.ts';
import type { Device } from '../../devices/device.ts';
import { bootId, type ProcessIdentity } from '../../linux/process.ts';
import { readMounts } from '../../linux/mountinfo.ts';
import { type NbdAttachment, nbdUser } from './nbd-device.ts';

export interface MountSubject {
  /** ID of the recovery point; empty for an image file. */
  readonly point: string;
  /** The device of the recovery point, or the image file. */
  readonly device: string;
}

export type AttachMethod = 'nbd-client' | 'nbdfuse' | 'qemu-storage-daemon';

export interface MountRecord extends MountSubject {
  readonly id: string;
  /** A `mount` stays until `umount`; the others end with the command that made them. */
  readonly purpose: 'mount' | 'files' | 'check';
  /** The mount point; undefined if the image is only attached. */
  directory: string | undefined;
  /** The directory was created for the mount and is removed with it. */
  madeDirectory: boolean;
  partition: number | undefined;
  filesystem: string | undefined;
  /** ISO 8601. */
  readonly created: string;
  readonly boot: string;
  /** The process that makes the mount. A clean-up does not touch a mount that this process is still making. */
  readonly maker: ProcessIdentity | undefined;
  server: ProcessIdentity | undefined;
  method: AttachMethod | undefined;
  /** nbdfuse or qemu-storage-daemon. */
  fuse: ProcessIdentity | undefined;
  /** The file that FUSE shows, or `/dev/nbdN`. */
  file: string | undefined;
  /** Shows whether `/dev/nbdN` is still our connection. */
  nbd: NbdAttachment | undefined;
  /** `/dev/loopN`. */
  loop: string | undefined;
  /** All steps are done. */
  ready: boolean;
}

/** Returns the directory of a mount's files. It is short because the path of a socket has at most 107 bytes. */
export function placeOf(runDirectory: string, id: string): string {
  return join(runDirectory, 'mounts', id);
}

export async function newRecord(
  runDirectory: string,
  subject: MountSubject,
  purpose: MountRecord['purpose'],
  maker: ProcessIdentity | undefined,
): Promise<MountRecord> {
  const id = freshBytes(4).toString('hex');
  const place = placeOf(runDirectory, id);
  const socket = join(place, 'nbd');
  if (Buffer.byteLength(socket) > 107)
    throw new AgentError(
      'BAD_USAGE',
      `${runDirectory} is too long: the path of a socket in it would have ${Buffer.byteLength(socket)} bytes, but at most 107 are possible`,
    );
  await makeDirectory(place);
  const { point, device } = subject;
  const record: MountRecord = {
    ...{ id, point, device, purpose, maker },
    ...{ directory: undefined, madeDirectory: false, partition: undefined, filesystem: undefined },
    ...{ created: new Date().toISOString(), boot: await bootId() },
    ...{ server: undefined, method: undefined, fuse: undefined },
    ...{ file: undefined, nbd: undefined, loop: undefined },
    ready: false,
  };
  try {
    await writeRecord(runDirectory, record);
  } catch (thrown) {
    // Nothing is there that could be needed to undo it.
    await rm(place, { recursive: true, force: true });
    throw thrown;
  }
  return record;
}

/** Throws FILE_ERROR. */
export async function writeRecord(runDirectory: string, record: MountRecord): Promise<void> {
  const path = join(placeOf(runDirectory, record.id), 'record.json');
  await writingAsync(path, async () => {
    await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
    await rename(`${path}.new`, path);
  });
}

/** Returns the records, the oldest first. Ignores malformed files. Throws FILE_ERROR if a record cannot be read. */
export async function readRecords(runDirectory: string): Promise<MountRecord[]> {
  const mounts = join(runDirectory, 'mounts');
  const ids = (await unlessAbsent(mounts, readdir(mounts))) ?? [];
  const records: MountRecord[] = [];
  for (const id of ids) {
    const path = join(placeOf(runDirectory, id), 'record.json');
    const text = await unlessAbsent(path, readFile(path, 'utf8'));
    if (text === undefined) continue;
    try {
      const record = JSON.parse(text) as MountRecord;
      if (record.id === id) records.push(record);
    } catch {
      // Not written by us: our records are complete when they are renamed into place.
    }
  }
  return records.sort((a, b) => a.created.localeCompare(b.created));
}

/** Files that nbdfuse and qemu-storage-daemon show (attach.ts). Their path identifies them if the record is lost. */
const shownFile = /\/mounts\/[0-9a-f]{8}\/(?:fuse\/)?image$/;

/**
 * Returns a test for devices that only show a recovery point. They have the UUID and the labels of the device that was
 * backed up, but must not be mistaken for it.
 */
export async function shownPoints(
  runDirectory: string,
): Promise<(device: Pick<Device, 'path' | 'partition' | 'backingFile'>) => boolean> {
  const boot = await bootId();
  const records = (await readRecords(runDirectory)).filter((record) => record.boot === boot);
  const shown = new Set<string | undefined>();
  for (const { file, loop, method, nbd } of records) {
    // Another program may have connected the same nbd device since.
    if (method === 'nbd-client' && file !== undefined && (await nbdUser(file, nbd)) === 'other') continue;
    shown.add(file).add(loop);
  }
  for (const { type, path } of await readMounts())
    if (type.startsWith('fuse'))
      for (const file of [path, join(path, 'image')]) if (shownFile.test(file)) shown.add(file);
  shown.delete(undefined);
  // The file behind a loop device identifies it: after a broken mount, its number may belong to another process.
  return ({ path, partition, backingFile }) =>
    shown.has(backingFile ?? path) || (partition !== undefined && shown.has(partition.disk));
}

export async function removeRecord(runDirectory: string, { id }: MountRecord): Promise<void> {
  await rm(placeOf(runDirectory, id), { recursive: true, force: true });
}
