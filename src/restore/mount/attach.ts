/**
 * Attaches an image to this machine as a file or block device, without copying it. A process serves the image over NBD on a
 * private socket. The kernel's nbd client, or else FUSE (nbdfuse, qemu-storage-daemon), shows it. Every step is recorded
 * before it is taken. `detach` undoes the steps in reverse order, also if only some of them are left.
 */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, readdir, readFile, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { readMounts } from '../../linux/mountinfo.ts';
import { identifyProcess, isAlive, type ProcessIdentity } from '../../linux/process.ts';
import { attribute } from '../../linux/sysfs.ts';
import type { ImageSpec } from '../image/open-image.ts';
import { startExportProcess } from './export-process.ts';
import { attachNbdDevice, detachNbdDevice } from './nbd-attach.ts';
import { freeNbdDevice, nbdUser } from './nbd-device.ts';
import { type AttachMethod, type MountRecord, placeOf, removeRecord, writeRecord } from './mount-record.ts';
import { findTool, needTool, runTool, toolEnvironment } from './tools.ts';

export interface AttachOptions {
  readonly image: ImageSpec;
  readonly sectorSize: number;
  readonly runDirectory: string;
  /** Use only this method. Default: the first one that works. */
  readonly method?: AttachMethod | undefined;
  readonly signal?: AbortSignal | undefined;
  /** The image server gets its own mount namespace: the coming mount would hide the vault that the server reads. */
  readonly ownMounts?: boolean;
}

const readyMs = 20_000;
const endMs = 10_000;

/** Sets and returns `record.file`. Throws NOT_SUPPORTED without a usable method, MOUNT_FAILED, and errors of the image. */
export async function attach(record: MountRecord, options: AttachOptions): Promise<string> {
  const { runDirectory, image, signal } = options;
  const methods = await usableMethods(options.method);
  const place = placeOf(runDirectory, record.id);
  const socket = join(place, 'nbd');
  await startExportProcess(
    { image, name: 'image', listen: { kind: 'unix', path: socket } },
    { logFile: join(place, 'server.log'), ownMounts: options.ownMounts === true },
    async (identity) => {
      record.server = identity;
      await writeRecord(runDirectory, record);
    },
    signal,
  );
  let failure: unknown;
  for (const method of methods) {
    record.method = method;
    try {
      await attachments[method](record, options, place, socket);
      return record.file!;
    } catch (error) {
      failure ??= error;
      signal?.throwIfAborted();
      await takeAwayFile(record, runDirectory);
    }
  }
  throw failure;
}

type Attachment = (
  record: MountRecord,
  options: AttachOptions,
  place: string,
  socket: string,
) => Promise<void>;

const attachments: Readonly<Record<AttachMethod, Attachment>> = {
  'nbd-client': (record, { runDirectory, sectorSize, signal }, _place, socket) =>
    attachNbdDevice(record, {
      ...{ socket, sectorSize, signal },
      save: () => writeRecord(runDirectory, record),
    }),
  nbdfuse: async (record, options, place, socket) => {
    const directory = join(place, 'fuse');
    await mkdir(directory, { recursive: true });
    record.file = join(directory, 'image');
    // nbdfuse interprets `[ ]` and commands, but takes a plain path literally.
    const pidFile = join(place, 'nbdfuse.pid');
    const args = ['--readonly', '--pidfile', pidFile, record.file, '--unix', socket];
    await startFuse(record, options, place, 'nbdfuse', args, directory);
  },
  'qemu-storage-daemon': async (record, options, place, socket) => {
    const file = join(place, 'image');
    await writeFile(file, '');
    record.file = file;
    const args = [
      '--blockdev',
      `driver=nbd,node-name=image,server.type=unix,server.path=${socket.replaceAll(',', ',,')},export=image,read-only=on`,
      '--export',
      `type=fuse,id=fuse,node-name=image,mountpoint=${file.replaceAll(',', ',,')},writable=off`,
    ];
    await startFuse(record, options, place, 'qemu-storage-daemon', args, file);
  },
};

async function usableMethods(wanted: AttachMethod | undefined): Promise<AttachMethod[]> {
  if (wanted !== undefined) {
    await needTool(wanted);
    return [wanted];
  }
  const usable: AttachMethod[] = [];
  if ((await freeNbdDevice()) !== undefined && (await findTool('nbd-client')) !== undefined)
    usable.push('nbd-client');
  for (const method of ['nbdfuse', 'qemu-storage-daemon'] as const)
    if ((await findTool(method)) !== undefined) usable.push(method);
  if (usable.length === 0)
    throw new AgentError(
      'NOT_SUPPORTED',
      'No tool to show an image as a file: nbdfuse, qemu-storage-daemon, or nbd-client with the nbd module is needed',
      {
        hint: "install Debian's libnbd-bin (nbdfuse on later releases), Red Hat's nbdfuse, or qemu-storage-daemon",
      },
    );
  return usable;
}

async function startFuse(
  record: MountRecord,
  { runDirectory, signal }: AttachOptions,
  place: string,
  tool: string,
  args: readonly string[],
  mountPoint: string,
): Promise<void> {
  const log = join(place, `${tool}.log`);
  const fd = openSync(log, 'a', 0o600);
  const child = spawn(await needTool(tool), [...args], {
    cwd: '/',
    detached: true,
    env: toolEnvironment,
    stdio: ['ignore', fd, fd],
  });
  closeSync(fd);
  child.on('error', () => undefined);
  record.fuse = child.pid === undefined ? undefined : await identifyProcess(child.pid);
  await writeRecord(runDirectory, record);
  child.unref();
  const deadline = performance.now() + readyMs;
  while (!(await isFuseMounted(mountPoint))) {
    signal?.throwIfAborted();
    const lives = record.fuse !== undefined && (await isAlive(record.fuse));
    if (!lives || performance.now() > deadline) {
      const said = await readFile(log, 'utf8').catch(() => '');
      const why = lives ? `was not ready after ${readyMs / 1000} s` : 'failed to start';
      throw new AgentError(
        'MOUNT_FAILED',
        `${tool} ${why}: ${said.trim().split('\n').slice(-2).join('; ')}`,
        {
          hint: 'run as root, and load FUSE (modprobe fuse) if /dev/fuse is missing',
        },
      );
    }
    await sleep(10);
  }
}

async function isFuseMounted(path: string): Promise<boolean> {
  return (await readMounts()).some((mount) => mount.path === path && mount.type.startsWith('fuse'));
}

/** Makes a loop device over the attached file or a part of it. Returns the nbd device itself if all of it is wanted. */
export async function loopOver(
  record: MountRecord,
  runDirectory: string,
  part: { readonly offset: number; readonly size: number } | undefined,
  sectorSize: number,
): Promise<string> {
  if (part === undefined && record.method === 'nbd-client') return record.file!;
  const args = ['--find', '--show', '--read-only'];
  if (part !== undefined) args.push('--offset', String(part.offset), '--sizelimit', String(part.size));
  if (sectorSize !== 512) args.push('--sector-size', String(sectorSize));
  for (let attempt = 0; ; attempt++)
    try {
      record.loop = (await runTool('losetup', [...args, record.file!])).stdout.trim();
      await writeRecord(runDirectory, record);
      return record.loop;
    } catch (error) {
      // Another losetup may have taken the same free number.
      if (attempt === 5) throw error;
    }
}

/** Removes an attachment and its record. Throws DEVICE_BUSY if another process still uses it. */
export async function detach(record: MountRecord, runDirectory: string): Promise<void> {
  await takeAwayLoop(record, runDirectory);
  await takeAwayFile(record, runDirectory);
  await endProcess(record.server);
  if (record.madeDirectory && record.directory !== undefined)
    await rmdir(record.directory).catch(() => undefined);
  await removeRecord(runDirectory, record);
}

async function takeAwayLoop(record: MountRecord, runDirectory: string): Promise<void> {
  const { loop, file, method, nbd } = record;
  // If another process has connected the nbd device since, its loop devices are not ours.
  if (method === 'nbd-client' && file !== undefined && (await nbdUser(file, nbd)) === 'other') return;
  // A crash between losetup and the write of the record leaves a loop device that is not in the record.
  const found = loop ?? (file === undefined ? undefined : await loopOf(file));
  if (found === undefined || file === undefined) return;
  const isOurs = async (): Promise<boolean> => (await fileOfLoop(found)) === file;
  const deadline = performance.now() + endMs;
  for (let isDetached = false; await isOurs();) {
    // Once is enough: the kernel releases the file when the last user closes the device, and the number may be another
    // program's from then on.
    if (!isDetached)
      isDetached = (await runTool('losetup', ['--detach', found], { allow: 'any' })).code === 0;
    if (!(await isOurs())) break;
    if (performance.now() > deadline)
      throw new AgentError(
        'DEVICE_BUSY',
        `${found} is still in use, so ${record.device} cannot be detached`,
        {
          hint: `find its users with findmnt ${found} and fuser -vm ${found}`,
        },
      );
    await sleep(50);
  }
  record.loop = undefined;
  await writeRecord(runDirectory, record);
}

/** Finds the loop device in sysfs. losetup would access the file, which does not answer if its server has ended. */
async function loopOf(file: string): Promise<string | undefined> {
  for (const name of await readdir('/sys/block'))
    if (/^loop\d+$/.test(name) && (await fileOfLoop(`/dev/${name}`)) === file) return `/dev/${name}`;
  return undefined;
}

/**
 * Returns the file behind a loop device. The kernel appends "(deleted)" if it no longer finds the name, also if the FUSE
 * process has died and caches were dropped.
 */
async function fileOfLoop(device: string): Promise<string | undefined> {
  const place = join('/sys/block', device.replace('/dev/', ''));
  return (await attribute(place, 'loop/backing_file'))?.replace(/ \(deleted\)$/, '');
}

async function takeAwayFile(record: MountRecord, runDirectory: string): Promise<void> {
  const { file, method } = record;
  if (method === 'nbd-client') return detachNbdDevice(record, () => writeRecord(runDirectory, record));
  if (file !== undefined) {
    const mountPoint = method === 'nbdfuse' ? join(file, '..') : file;
    const deadline = performance.now() + endMs;
    while (await isFuseMounted(mountPoint)) {
      await runTool('umount', [mountPoint], { allow: 'any' });
      if (!(await isFuseMounted(mountPoint))) break;
      if (performance.now() > deadline)
        throw new AgentError(
          'DEVICE_BUSY',
          `${mountPoint} is still in use, so ${record.device} cannot be detached`,
          {
            hint: `find its users with fuser -vm ${mountPoint}`,
          },
        );
      await sleep(50);
    }
  }
  await endProcess(record.fuse);
  record.fuse = undefined;
  record.file = undefined;
  await writeRecord(runDirectory, record);
}

/** Ends a process with SIGTERM, and with SIGKILL if it still runs 5 s later. */
async function endProcess(identity: ProcessIdentity | undefined): Promise<void> {
  if (identity === undefined) return;
  for (const [signal, ms] of [
    ['SIGTERM', 5000],
    ['SIGKILL', 5000],
  ] as const) {
    if (!(await isAlive(identity))) return;
    try {
      process.kill(identity.pid, signal);
    } catch {
      return;
    }
    const deadline = performance.now() + ms;
    while ((await isAlive(identity)) && performance.now() < deadline) await sleep(10);
  }
}
