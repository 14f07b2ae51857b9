/**
 * Thaws filesystems that a dead guard has left frozen, using the guard's record. Used by the agent if its guard was
 * killed, and by every daemon when it starts.
 */
import { constants } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { boundedOpen } from '../base/bounded-call.ts';
import { errnoCode } from '../base/errors.ts';
import type { Log } from '../base/log.ts';
import { thawFilesystemNow } from '../linux/ioctl.ts';
import { readMounts } from '../linux/mountinfo.ts';
import { bootId, isAlive, machineMilliseconds } from '../linux/process.ts';
import { splitDeviceNumber } from '../linux/device-uses.ts';
import { restoreGracePeriods } from './grace-periods.ts';
import {
  type FreezeRecord,
  listRecords,
  readRecord,
  type RecordedMount,
  removeRecord,
} from './freeze-record.ts';

export interface Leftovers {
  /** Mount points that were found frozen and were thawed. */
  readonly thawed: string[];
  /** Mount points that the running guard of another daemon holds frozen. */
  readonly held: string[];
  /** Mount points that could not be thawed, with the reason. */
  readonly failures: string[];
}

/** Milliseconds after its deadline before a guard that still exists counts as stopped. */
const graceMs = 2000;

/**
 * Thaws filesystems that earlier daemons left frozen. Call it when a daemon starts. Records of earlier boots and
 * invalid records are removed. Mounts that a running guard holds within its deadline are never thawed.
 */
export async function thawLeftovers(runDirectory: string, log: Log): Promise<Leftovers> {
  const result: Leftovers = { thawed: [], held: [], failures: [] };
  const boot = await bootId();
  if (restoreGracePeriods(runDirectory))
    log.info('put back a setting of the kernel that an earlier run had changed');
  for (const path of listRecords(runDirectory)) {
    let record: FreezeRecord | undefined;
    try {
      record = readRecord(path);
    } catch (thrown) {
      result.failures.push(
        `the mounts that ${path} names are not known (${errnoCode(thrown) ?? String(thrown)})`,
      );
      continue;
    }
    if (record?.bootId !== boot) {
      removeRecord(path);
      continue;
    }
    if (await isAlive(record.guard)) {
      if (machineMilliseconds() < record.deadline + graceMs) {
        result.held.push(...record.mounts.map((mount) => mount.path));
        continue;
      }
      // The guard was stopped (SIGSTOP) and does not thaw. If it continued, it could thaw another process's freeze.
      process.kill(record.guard.pid, 'SIGKILL');
    }
    const failuresBefore = result.failures.length;
    await thawRecorded(record, result);
    if (result.failures.length === failuresBefore) removeRecord(path);
  }
  if (result.thawed.length > 0)
    log.warn({ mounts: result.thawed }, 'thawed filesystems that an earlier run left frozen');
  if (result.failures.length > 0) log.error({ failures: result.failures }, 'filesystems stay frozen');
  return result;
}

/** Thaws the mounts of a record, the last frozen first. */
async function thawRecorded(record: FreezeRecord, result: Leftovers): Promise<void> {
  for (const mount of record.mounts.toReversed()) {
    const handle = await openAgain(mount).catch((thrown: unknown) => {
      result.failures.push(`${mount.path} cannot be opened (${errnoCode(thrown) ?? String(thrown)})`);
      return undefined;
    });
    // A filesystem that is not mounted any more is not frozen either: umount waits for the thaw.
    if (handle === undefined) continue;
    try {
      const outcome = thawIfFrozen(handle.fd);
      if (outcome === 'thawed') result.thawed.push(mount.path);
      else if (outcome !== 'was not frozen')
        result.failures.push(`${mount.path} could not be thawed (${outcome})`);
    } finally {
      await handle.close();
    }
  }
}

/** Thaws the filesystem. Returns `thawed`, `was not frozen`, or errno's name. */
export function thawIfFrozen(fd: number): string {
  try {
    thawFilesystemNow(fd);
    return 'thawed';
  } catch (thrown) {
    const code = errnoCode(thrown);
    return code === 'EINVAL' ? 'was not frozen' : (code ?? String(thrown));
  }
}

/**
 * Opens the filesystem by its recorded path, or by any other mount of it. Returns undefined if it is not mounted any
 * more. Throws if it is mounted but cannot be opened.
 */
async function openAgain(mount: RecordedMount): Promise<FileHandle | undefined> {
  const { major, minor } = splitDeviceNumber(mount.dev);
  let trouble: { readonly thrown: unknown } | undefined;
  const elsewhere = (await readMounts()).filter((each) => each.major === major && each.minor === minor);
  for (const path of [mount.path, ...elsewhere.map((each) => each.path)])
    try {
      const handle = await boundedOpen(path, constants.O_RDONLY | constants.O_NONBLOCK);
      if ((await handle.stat()).dev === mount.dev) return handle;
      await handle.close();
    } catch (thrown) {
      // The mount is covered, renamed, gone, or hangs. Try the next one.
      if (errnoCode(thrown) !== 'ENOENT') trouble ??= { thrown };
    }
  if (trouble !== undefined && elsewhere.length > 0) throw trouble.thrown;
  return undefined;
}
