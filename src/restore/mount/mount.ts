/**
 * `mount POINT DIR`, `umount DIR` and the list of mounts: a recovery point as a directory, read-only, in a moment and
 * whatever its size. What is where is in the records (record.ts); nothing here needs the process that mounted.
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
import { type MountRecord, type MountSubject, newRecord, readRecords, writeRecord } from './record.ts';
import { runTool } from './tools.ts';

export interface MountOptions extends AttachOptions {
  readonly subject: MountSubject;
  /** Made where it is missing. */
  readonly directory: string;
  /** Where the image is a whole disk. */
  readonly partition?: number | undefined;
  readonly purpose?: MountRecord['purpose'];
  /** Also where it hides something that matters (over.ts). */
  readonly over?: boolean;
  /** Mount points of the machine that was backed up. */
  readonly knownPlaces?: readonly string[];
  readonly stateDirectory?: string | undefined;
}

export interface MountStatus extends MountRecord {
  /** `unmounted`: by hand, and not yet cleaned up; `broken`: its server or FUSE process has died. */
  readonly state: 'mounting' | 'mounted' | 'unmounted' | 'broken';
}

/**
 * Mounts it. Throws BAD_USAGE (which partition), NOT_SUPPORTED (no means, or nothing mountable), FILE_EXISTS (something of
 * ours is mounted there, or something is hidden by it), MOUNT_FAILED, and what the image throws. Nothing is left behind a failure.
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
    // Both begin with starting something and opening the image, and neither needs the other.
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

/** The kernel knows a btrfs by its UUID alone, and before Linux 6.7 it does not mount two with one UUID. */
async function explained(error: unknown, { type, uuid }: ChosenFilesystem): Promise<unknown> {
  if (!(error instanceof AgentError) || type !== 'btrfs' || uuid === undefined) return error;
  const isMounted = await stat(`/sys/fs/btrfs/${uuid}`).then(
    () => true,
    () => false,
  );
  if (!isMounted) return error;
  return new AgentError(
    error.code,
    `${error.message}; another btrfs with its UUID (${uuid}) is mounted here, and only Linux 6.7 and later mounts two of one device each`,
    {
      hint: 'Unmount that one in the meantime; or restore the point to a file, give it another UUID (btrfstune -u FILE) and mount it',
      cause: error,
    },
  );
}

/** Throws FILE_EXISTS where it matters, and nothing says that it is meant. */
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

/** As Promise.all, but when all have ended: what is under way still would outlive the cleaning up. */
async function settled<A, B>(work: readonly [Promise<A>, Promise<B>]): Promise<[A, B]> {
  await Promise.allSettled(work);
  return Promise.all(work);
}

/** By age. */
export async function listMounts(runDirectory: string): Promise<MountStatus[]> {
  const mounts = await readMounts();
  const boot = await bootId();
  const records = (await readRecords(runDirectory)).filter((record) => record.boot === boot);
  return Promise.all(records.map(async (record) => ({ ...record, state: await stateOf(record, mounts) })));
}

/**
 * Takes down what is mounted on the directory, or has this id, whatever is left of it. Throws MOUNT_NOT_FOUND, and
 * DEVICE_BUSY where somebody uses it.
 */
export async function unmountImage(runDirectory: string, directoryOrId: string): Promise<MountRecord> {
  const wanted = await realpath(directoryOrId).catch(() => resolve(directoryOrId));
  const records = await readRecords(runDirectory);
  const found = records.findLast(
    (each) =>
      each.id === directoryOrId || each.directory === wanted || each.directory === resolve(directoryOrId),
  );
  if (found === undefined)
    throw new AgentError('MOUNT_NOT_FOUND', `Nothing of ours is mounted on ${directoryOrId}`, {
      hint:
        records.length === 0
          ? 'no recovery point is mounted'
          : `mounted are ${records.map(({ directory, id }) => directory ?? id).join(', ')}`,
    });
  await takeDown(found, runDirectory);
  return found;
}

/**
 * Clears away what nobody needs any more: mounts that were unmounted by hand, those of an earlier boot, and what commands
 * that died had attached for themselves. What is mounted stays, also where it is broken. Returns what was cleared.
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
    // Numbers and processes of another boot mean nothing now.
    const none = { server: undefined, fuse: undefined, file: undefined, nbd: undefined, loop: undefined };
    return detach({ ...record, ...none }, runDirectory);
  }
  const deadline = performance.now() + 5000;
  while (directory !== undefined && isMounted(record, await readMounts())) {
    const { code, stderr } = await runTool('umount', [directory], { allow: 'any' });
    if (code === 0) continue;
    if (performance.now() > deadline)
      throw new AgentError('DEVICE_BUSY', `${directory} cannot be unmounted: ${stderr.trim()}`, {
        hint: `see who uses it with fuser -vm ${directory}`,
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

/** Our device is mounted there, and not something else since. */
function isMounted({ directory, loop, file }: MountRecord, mounts: readonly MountEntry[]): boolean {
  const device = loop ?? file;
  return mounts.some((mount) => mount.path === directory && mount.source === device);
}

/** True where it had to be made. */
async function makeDirectory(path: string): Promise<boolean> {
  const node = await stat(path).catch(() => undefined);
  if (node?.isDirectory() === true) return false;
  if (node !== undefined)
    throw new AgentError('FILE_ERROR', `${path} is no directory, so nothing is mounted there`);
  try {
    await mkdir(path);
  } catch (cause) {
    // The one directory is made, and goes again at the end; a path that is mistyped higher up is not.
    throw new AgentError('FILE_ERROR', `${path} cannot be made: ${errnoCode(cause) ?? String(cause)}`, {
      hint: 'name a directory, or one to be made in a directory that is there',
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
      `${directory} has ${other.device} of a recovery point mounted already`,
      {
        hint: `umount it first (${other.id})`,
      },
    );
}
