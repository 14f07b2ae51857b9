/**
 * What a mount consists of, written down before each step, so that it can be taken apart whatever died meanwhile:
 * `RUN_DIRECTORY/mounts/ID/record.json`, beside the socket and the directory of the FUSE mount. No secrets.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AgentError } from '../../base/errors.ts';
import { freshBytes } from '../../base/random.ts';
import { unlessAbsent } from '../../base/files.ts';
import type { Device } from '../../devices/device.ts';
import { bootId, type ProcessIdentity } from '../../linux/process.ts';
import { readMounts } from '../../linux/mountinfo.ts';
import { type NbdAttachment, nbdUser } from './nbd-device.ts';

export interface MountSubject {
  /** Id of the recovery point; empty for an image file. */
  readonly point: string;
  /** The device in it, or the image file. */
  readonly device: string;
}

export type AttachMethod = 'nbd-client' | 'nbdfuse' | 'qemu-storage-daemon';

export interface MountRecord extends MountSubject {
  readonly id: string;
  /** `mount` is a person's; the others end with the command that made them. */
  readonly purpose: 'mount' | 'files' | 'check';
  /** Where it is to be seen; undefined for what is only attached. */
  directory: string | undefined;
  /** The directory was made for it, and goes with it. */
  madeDirectory: boolean;
  partition: number | undefined;
  filesystem: string | undefined;
  /** ISO 8601. */
  readonly created: string;
  readonly boot: string;
  /** The process that made it: whoever cleans leaves alone what is still being made. */
  readonly maker: ProcessIdentity | undefined;
  server: ProcessIdentity | undefined;
  method: AttachMethod | undefined;
  /** nbdfuse or qemu-storage-daemon. */
  fuse: ProcessIdentity | undefined;
  /** The file that FUSE shows, or `/dev/nbdN`. */
  file: string | undefined;
  /** By what `/dev/nbdN` is known to be ours still. */
  nbd: NbdAttachment | undefined;
  /** `/dev/loopN`. */
  loop: string | undefined;
  /** All steps are done. */
  ready: boolean;
}

/** Directory of a mount's files. Short: a socket's path has 107 bytes at most. */
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
      `${runDirectory} is too long: a socket in it would have ${Buffer.byteLength(socket)} bytes, of 107`,
    );
  await mkdir(place, { recursive: true, mode: 0o700 });
  const { point, device } = subject;
  const record: MountRecord = {
    ...{ id, point, device, purpose, maker },
    ...{ directory: undefined, madeDirectory: false, partition: undefined, filesystem: undefined },
    ...{ created: new Date().toISOString(), boot: await bootId() },
    ...{ server: undefined, method: undefined, fuse: undefined },
    ...{ file: undefined, nbd: undefined, loop: undefined },
    ready: false,
  };
  await writeRecord(runDirectory, record);
  return record;
}

export async function writeRecord(runDirectory: string, record: MountRecord): Promise<void> {
  const path = join(placeOf(runDirectory, record.id), 'record.json');
  await writeFile(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
  await rename(`${path}.new`, path);
}

/** By age. What is no record is left out. Throws FILE_ERROR if one cannot be read. */
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
      // Written by nobody of ours: it is renamed into its place whole.
    }
  }
  return records.sort((a, b) => a.created.localeCompare(b.created));
}

/** Files that nbdfuse and qemu-storage-daemon show (attach.ts): known by their place, if the record of it is lost. */
const shownFile = /\/mounts\/[0-9a-f]{8}\/(?:fuse\/)?image$/;

/**
 * Tells devices that only show a recovery point: they bear the UUID and the labels of the device that was backed up, and are
 * not it.
 */
export async function shownPoints(
  runDirectory: string,
): Promise<(device: Pick<Device, 'path' | 'partition' | 'backingFile'>) => boolean> {
  const boot = await bootId();
  const records = (await readRecords(runDirectory)).filter((record) => record.boot === boot);
  const shown = new Set<string | undefined>();
  for (const { file, loop, method, nbd } of records) {
    // Another program may have got the same nbd device since.
    if (method === 'nbd-client' && file !== undefined && (await nbdUser(file, nbd)) === 'other') continue;
    shown.add(file).add(loop);
  }
  for (const { type, path } of await readMounts())
    if (type.startsWith('fuse'))
      for (const file of [path, join(path, 'image')]) if (shownFile.test(file)) shown.add(file);
  shown.delete(undefined);
  // A loop device is known by the file behind it, since its number may be another's when a mount fell apart.
  return ({ path, partition, backingFile }) =>
    shown.has(backingFile ?? path) || (partition !== undefined && shown.has(partition.disk));
}

export async function removeRecord(runDirectory: string, { id }: MountRecord): Promise<void> {
  await rm(placeOf(runDirectory, id), { recursive: true, force: true });
}
