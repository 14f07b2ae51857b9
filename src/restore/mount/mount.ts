/**
 * `mount POINT DIR`, `umount DIR` and the list of mounts. They show a recovery point as a read-only directory. Mounting
 * takes the same short time for any size. All state is in the records (mount-record.ts), so the process that mounted may end.
 */
import { mkdir, realpath, stat } from 'node:fs/promises';
import { resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { type MountEntry, readMounts } from '../../linux/mountinfo.ts';
import { bootId, identifyProcess, isAlive } from '../../linux/process.ts';
import { openImage, placeOfImage } from '../image/open-image.ts';
import { type AttachOptions, attach, detach, loopOver } from './attach.ts';
import { type ChosenFilesystem, chooseFilesystem, findFilesystems } from './filesystem-choice.ts';
import { type Hidden, fstabPlaces, hiddenBy, realPlace, refuseHiding } from './over.ts';
import { type MountRecord, type MountSubject, newRecord, readRecords, writeRecord } from './mount-record.ts';
import { runTool } from './tools.ts';

export interface MountOptions extends AttachOptions {
  readonly subject: MountSubject;
  /** The mount point. A missing directory is created. */
  readonly directory: string;
  /** The partition to mount if the image is a whole disk. */
  readonly partition?: number | undefined;
  readonly purpose?: MountRecord['purpose'];
  /** Mount even if the mount hides important directories (over.ts). */
  readonly over?: boolean;
  /** Mount points of the machine that was backed up. */
  readonly knownPlaces?: readonly string[];
  readonly stateDirectory?: string | undefined;
}

export interface MountStatus extends MountRecord {
  /** `unmounted`: unmounted by hand, but not cleaned up yet. `broken`: its server or FUSE process has died. */
  readonly state: 'mounting' | 'mounted' | 'unmounted' | 'broken';
}

/**
 * Mounts an image, or leaves nothing behind. Throws BAD_USAGE (no partition chosen), NOT_SUPPORTED (no tool, or nothing to
 * mount), MOUNT_FAILED, and the errors of the image. Throws FILE_EXISTS if a recovery point is mounted there, or if the
 * mount would hide something.
 */
export async function mountImage(options: MountOptions): Promise<MountRecord> {
  const { runDirectory, subject, sectorSize, signal } = options;
  const hidden = await whatIsHidden(options);
  const made = await makeDirectory(options.directory);
  const record = await newRecord(
    runDirectory,
    subject,
    options.purpose ?? 'mount',
    await identifyProcess(process.pid),
  );
  record.madeDirectory = made;
  try {
    record.directory = await realpath(options.directory);
    // Both open the image, and neither needs the other, so they run in parallel.
    const ownMounts = hidden?.image === true;
    const [chosen] = await settled([inspect(options), attach(record, { ...options, ownMounts })]);
    record.partition = chosen.partition;
    record.filesystem = chosen.type;
    const part = chosen.partition === undefined ? undefined : chosen;
    const device = await loopOver(record, runDirectory, part, sectorSize);
    await runTool('mount', ['-t', chosen.type, '-o', chosen.options, device, record.directory], {
      signal,
    }).catch(async (error: unknown) => {
      throw await explained(error, chosen);
    });
    record.ready = true;
    await writeRecord(runDirectory, record);
    return record;
  } catch (error) {
    await takeDown(record, runDirectory).catch(() => undefined);
    throw error;
  }
}

/** Explains a failed mount of btrfs: before Linux 6.7, the kernel cannot mount two btrfs with the same UUID. */
async function explained(error: unknown, { type, uuid }: ChosenFilesystem): Promise<unknown> {
  if (!(error instanceof AgentError) || type !== 'btrfs' || uuid === undefined) return error;
  const isMounted = await stat(`/sys/fs/btrfs/${uuid}`).then(
    () => true,
    () => false,
  );
  if (!isMounted) return error;
  return new AgentError(
    error.code,
    `${error.message}; another btrfs with the same UUID (${uuid}) is mounted, and Linux before 6.7 cannot mount both`,
    {
      hint: 'Unmount the other one first; or restore the point to a file, change its UUID (btrfstune -u FILE) and mount it',
      cause: error,
    },
  );
}

/** Returns what the mount would hide. Throws FILE_EXISTS if that is important and `over` is not set. */
async function whatIsHidden(options: MountOptions): Promise<Hidden | undefined> {
  if ((options.purpose ?? 'mount') !== 'mount') return undefined;
  const { runDirectory, stateDirectory, over = false } = options;
  const place = placeOfImage(options.image);
  const directory = await realPlace(options.directory);
  const boot = await bootId();
  const records = await readRecords(runDirectory);
  refuseSecond(
    records.filter((each) => each.boot === boot),
    directory,
  );
  const hidden = hiddenBy(directory, {
    mounts: await readMounts(),
    known: [...(await fstabPlaces()), ...(options.knownPlaces ?? [])],
    image: place === undefined ? undefined : await realPlace(place),
    stateDirectory: stateDirectory === undefined ? undefined : await realPlace(stateDirectory),
    runDirectory: await realPlace(runDirectory),
  });
  refuseHiding(directory, hidden, over);
  return hidden;
}

async function inspect({ image: spec, signal, ...options }: MountOptions): Promise<ChosenFilesystem> {
  const image = await openImage(spec, { signal });
  try {
    const found = await findFilesystems(image, options.sectorSize);
    return chooseFilesystem(found, options.partition, options.subject.device);
  } finally {
    await image.close();
  }
}

/** Like Promise.all, but waits until both have ended. Otherwise one could still run during the clean-up. */
async function settled<A, B>(work: readonly [Promise<A>, Promise<B>]): Promise<[A, B]> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

/** Returns the mounts of this boot, the oldest first. */
export async function listMounts(runDirectory: string): Promise<MountStatus[]> {
  const mounts = await readMounts();
  const boot = await bootId();
  const records = (await readRecords(runDirectory)).filter((record) => record.boot === boot);
  return Promise.all(records.map(async (record) => ({ ...record, state: await stateOf(record, mounts) })));
}

/**
 * Removes the mount on the directory, or with this ID, also if only a part of it is left. Throws MOUNT_NOT_FOUND, and
 * DEVICE_BUSY if another process uses it.
 */
export async function unmountImage(runDirectory: string, directoryOrId: string): Promise<MountRecord> {
  const wanted = await realpath(directoryOrId).catch(() => resolve(directoryOrId));
  const records = await readRecords(runDirectory);
  const found = records.findLast(
    (each) =>
      each.id === directoryOrId || each.directory === wanted || each.directory === resolve(directoryOrId),
  );
  if (found === undefined)
    throw new AgentError('MOUNT_NOT_FOUND', `No recovery point is mounted on ${directoryOrId}`, {
      hint:
        records.length === 0
          ? 'no recovery point is mounted'
          : `mounted: ${records.map(({ directory, id }) => directory ?? id).join(', ')}`,
    });
  await takeDown(found, runDirectory);
  return found;
}

/**
 * Removes stale mounts: those unmounted by hand, those of an earlier boot, and attachments of commands that died. A mount
 * that is still mounted stays, even if it is broken. Returns the removed mounts.
 */
export async function clearMounts(runDirectory: string): Promise<MountRecord[]> {
  const mounts = await readMounts();
  const cleared: MountRecord[] = [];
  for (const record of await readRecords(runDirectory)) {
    const maker = record.maker !== undefined && (await isAlive(record.maker));
    const old = record.boot !== (await bootId());
    const abandoned = record.purpose !== 'mount' || !record.ready ? !maker : !isMounted(record, mounts);
    if (!old && !abandoned) continue;
    await takeDown(record, runDirectory);
    cleared.push(record);
  }
  return cleared;
}

/** Unmounts and detaches. Throws DEVICE_BUSY. */
export async function takeDown(record: MountRecord, runDirectory: string): Promise<void> {
  const { directory } = record;
  if (record.boot !== (await bootId())) {
    // Device numbers and processes of an earlier boot are not valid now.
    const none = { server: undefined, fuse: undefined, file: undefined, nbd: undefined, loop: undefined };
    return detach({ ...record, ...none }, runDirectory);
  }
  const deadline = performance.now() + 5000;
  while (directory !== undefined && isMounted(record, await readMounts())) {
    const { code, stderr } = await runTool('umount', [directory], { allow: 'any' });
    if (code === 0) continue;
    if (performance.now() > deadline)
      throw new AgentError('DEVICE_BUSY', `Cannot unmount ${directory}: ${stderr.trim()}`, {
        hint: `find its users with fuser -vm ${directory}`,
      });
    await sleep(100);
  }
  await detach(record, runDirectory);
}

async function stateOf(record: MountRecord, mounts: readonly MountEntry[]): Promise<MountStatus['state']> {
  const lives = async (identity: MountRecord['server']): Promise<boolean> =>
    identity === undefined || (await isAlive(identity));
  if (!record.ready && (await lives(record.maker))) return 'mounting';
  if (!(await lives(record.server)) || !(await lives(record.fuse))) return 'broken';
  return record.directory !== undefined && isMounted(record, mounts) ? 'mounted' : 'unmounted';
}

/** Whether our device is mounted on the directory, and not another one that was mounted since. */
function isMounted({ directory, loop, file }: MountRecord, mounts: readonly MountEntry[]): boolean {
  const device = loop ?? file;
  return mounts.some((mount) => mount.path === directory && mount.source === device);
}

/** Creates the directory if it is missing. Returns true if it was created. */
async function makeDirectory(path: string): Promise<boolean> {
  const node = await stat(path).catch(() => undefined);
  if (node?.isDirectory() === true) return false;
  if (node !== undefined)
    throw new AgentError('FILE_ERROR', `Cannot mount on ${path}: it is not a directory`);
  try {
    await mkdir(path);
  } catch (cause) {
    // Only the last directory of the path is created, and removed at the end. Parents are not: the path may be mistyped.
    throw new AgentError('FILE_ERROR', `Cannot create ${path}: ${errnoCode(cause) ?? String(cause)}`, {
      hint: 'name a directory, or a new directory inside an existing one',
      cause,
    });
  }
  return true;
}

function refuseSecond(records: readonly MountRecord[], directory: string): void {
  const other = records.find((each) => each.directory === directory);
  if (other !== undefined)
    throw new AgentError(
      'FILE_EXISTS',
      `${other.device} of a recovery point is already mounted on ${directory}`,
      {
        hint: `unmount it first: dattocli umount ${other.id}`,
      },
    );
}
