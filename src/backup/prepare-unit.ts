/**
 * The checks for one device and its target, and what is opened for them: threads and connection, chain, tracker,
 * and an exclusive hold on an idle device.
 */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { MiB } from '../base/bytes.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import { type Attachment, readAttachment } from '../devices/attachment.ts';
import type { Device } from '../devices/device.ts';
import { type MountedFilesystem, type Stack, filesystemsOn, liesOn } from '../devices/stacking.ts';
import { openWriteCounters } from '../devices/write-counters.ts';
import { swapPaths } from '../linux/usage.ts';
import { fingerprintUnit } from '../tracking/fingerprints.ts';
import { hasClone } from './clones.ts';
import { CopyPool } from './copy/pool.ts';
import type { SpoolRoom } from './copy/spool-room.ts';
import { expectedFilesystems } from './expected-filesystems.ts';
import { Feed } from './feed.ts';
import { freezable } from './freezable.ts';
import { impactLevels } from './impact.ts';
import type { DevicePair, JobEnvironment, JobOptions } from './job.ts';
import { refuseOwn } from './own-devices.ts';
import { type Plan, decide, isBehind } from './plan.ts';
import { chainSubject, chainsDirectory, drift, expectation, openChain } from './prepare-chain.ts';
import { prepareSnapshot } from './prepare-snapshot.ts';
import { startTracking } from './prepare-tracking.ts';
import { RecentUnits } from './recent-units.ts';
import { refuseSelfTarget, refuseSelfVault } from './self-target.ts';
import type { BackupKind, JobWarning } from './status.ts';
import { parseTarget, targetName, undoMaking } from './targets.ts';
import { type JobUnit, type UnitSnapshot, initialStatus } from './unit.ts';
import type { VaultJobs } from './vault-job.ts';
import { WrittenSince } from './written-since.ts';

/** More would be read and sent for one used block otherwise. */
const largestUnit = 256 * 1024;

export interface UnitContext {
  readonly job: string;
  /** Of the pair in the job, from 0. */
  readonly number: number;
  readonly kind: BackupKind;
  /** Devices in the job. */
  readonly pairs: number;
  readonly devices: readonly Device[];
  readonly stack: Stack;
  readonly options: JobOptions;
  readonly environment: JobEnvironment;
  readonly warnings: JobWarning[];
  readonly vaults: VaultJobs;
  /** Memory for what is kept until the thaw. */
  readonly room: SpoolRoom;
  /** For each device. */
  readonly connections: number;
  /** Ends the checks. */
  readonly signal: AbortSignal;
}

export async function prepareUnit(pair: DevicePair, context: UnitContext): Promise<JobUnit> {
  const { devices, stack, options, environment, warnings, vaults, signal } = context;
  signal.throwIfAborted();
  const { device } = pair;
  const target = parseTarget(pair.target);
  if (!device.backup.possible)
    throw new AgentError('DEVICE_BUSY', `${device.path} cannot be backed up: ${device.backup.how}`);
  await refuseOwn(device, context, environment);
  // A file target is made when it is opened, so this comes first for it.
  if (target.kind === 'file') await refuseSelfTarget(target, device, stack);
  const mounts = writableMounts(device, stack, warnings);
  const undo: (() => Promise<void>)[] = [];
  const discard = async (): Promise<void> => {
    for (let next = undo.pop(); next !== undefined; next = undo.pop()) await next();
  };
  try {
    const attachment = attachmentOf(device);
    const hold = mounts.length === 0 ? await holdIdle(device, warnings) : undefined;
    if (hold !== undefined) undo.push(() => hold.close());
    const tracking = await startTracking(device, context, undo);
    const vault = target.kind === 'vault' ? await vaults.open(target.location, environment) : undefined;
    if (vault?.directory !== undefined) await refuseSelfVault(vault.directory, device, stack);
    const unit =
      tracking.tracked === undefined
        ? Math.max(untrackedUnit(device.size), vault?.chunkSize ?? 0)
        : tracking.unit;
    const subject = chainSubject(device, target, await hasClone(device, context, environment));
    const chains = await chainsDirectory(environment);
    const { chain, record, unknown, rivals } = await openChain(
      chains,
      subject,
      unit,
      undo,
      vault !== undefined,
    );
    const base = context.kind === 'full' ? undefined : await vault?.findBase(record);
    const image = vault?.image(chain, base === undefined || 'why' in base ? undefined : base);
    if (image !== undefined) undo.push(() => image.end());
    const compared = mounts.length > 0 && tracking.tracked === undefined;
    const kept = options.fingerprints && environment.offline !== true;
    // A device that nothing tracks is compared if its counters of writes do not prove that it was idle.
    const untracked = tracking.tracked === undefined && environment.offline !== true;
    const fingerprinted =
      context.kind !== 'full' || compared || untracked || kept || options.verify === 'full';
    const pool = new CopyPool({
      sourcePath: device.path,
      deviceSize: device.size,
      livePartitions: livePartitions(device, devices),
      expected: expectedFilesystems(device, devices),
      target: image === undefined || target.kind !== 'vault' ? target : { ...target, making: image.making },
      threads: context.connections,
      unit,
      fingerprintPath: fingerprinted ? chain.fingerprintPath : undefined,
      key: chain.key,
      rate: options.rate === undefined ? undefined : options.rate / context.pairs,
      onReadError: options.onReadError,
      room: context.room,
      reconnectMs: options.reconnectMs,
      impact: impactLevels[options.impact],
      writes: openWriteCounters(device),
    });
    undo.push(await undoMaking(target), () => pool.close());
    stopWith(signal, pool);
    const facts = await pool.open();
    if (target.kind === 'nbd') await refuseSelfTarget(target, device, stack);
    const snapshot = compared
      ? await prepareSnapshot(device, { ...context, mounts, target, vaultDirectory: vault?.directory })
      : { why: '' };
    const plan = decide({
      wanted: context.kind,
      subject,
      record,
      targetSize: facts.size,
      drift:
        context.kind === 'full' || record?.state !== 'complete'
          ? undefined
          : base !== undefined && 'why' in base
            ? base.why
            : await drift(pool, chain, { wholly: isBehind({ record, tracked: tracking.tracked }) }),
      unknown,
      tracked: tracking.tracked,
      untracked: tracking.why,
    });
    refuseDoubt(plan, device, options);
    // Otherwise the fingerprints count only when the target has been read (finding.ts).
    if (plan.readTarget !== true) pool.expect(expectation(chain));
    return {
      pair,
      pool,
      chain,
      rivals,
      recent: new RecentUnits(plan.kind === 'full' ? [] : record?.recent),
      plan,
      tracking:
        tracking.tracked === undefined
          ? undefined
          : {
              feed: new Feed({
                ...{ tracker: tracking.tracked.tracker, device: tracking.device, tracked: tracking.tracked },
                ...{ chain, chains, log: environment.log },
              }),
              epoch: tracking.tracked.epoch,
            },
      mounts,
      hold,
      snapshot: 'why' in snapshot ? undefined : snapshot,
      noSnapshot: 'why' in snapshot ? snapshot.why : '',
      close: async () => {
        await pool.close();
        await hold?.close();
        if (!('why' in snapshot)) await removeSnapshot(snapshot, environment);
        await image?.end();
        if (environment.offline === true) await chain.remove();
      },
      discard,
      map: undefined,
      written: new WrittenSince(device.size),
      mapMs: 0,
      log: environment.log,
      mapped: true,
      attachment,
      look: undefined,
      watched: await isWatched(device, stack),
      comparable: fingerprinted,
      image,
      held: undefined,
      status: {
        ...initialStatus(pair, targetName(target)),
        kind: plan.kind,
        fallback_reason: plan.reason,
        tracker: tracking.tracked?.tracker.kind ?? 'none',
      },
    };
  } catch (error) {
    await discard();
    throw error;
  }
}

/**
 * Without a tracker nothing is known of single blocks, and larger units keep the bitmaps small: 4 MiB each up to
 * 8 TiB.
 */
export function untrackedUnit(size: number): number {
  let unit = fingerprintUnit;
  while (unit < largestUnit && size / unit > 32 * MiB) unit *= 2;
  return unit;
}

/** Whatever a thread waits for ends with the signal, a connection that is not answered among it. */
export function stopWith(signal: AbortSignal, pool: Pick<CopyPool, 'stop'>): void {
  signal.throwIfAborted();
  signal.addEventListener('abort', () => pool.stop(), { once: true });
}

/** Where the job failed: the next daemon removes what cannot be removed now. */
async function removeSnapshot({ snapshot }: UnitSnapshot, { log }: JobEnvironment): Promise<void> {
  await snapshot.remove().catch((err: unknown) => {
    log.error({ err, snapshot: snapshot.volume }, 'the snapshot could not be removed');
  });
}

/** Throws DEVICE_GONE if the device is not the one of the inventory any more. */
function attachmentOf(device: Device): Attachment {
  const found = readAttachment(device);
  if (found?.size === device.size) return found;
  throw new AgentError(
    'DEVICE_GONE',
    `${device.path} had ${device.size} bytes a moment ago, and ${found === undefined ? 'is gone' : `has ${found.size}`} now`,
    { hint: 'start the backup again' },
  );
}

/**
 * Whether writes inside the freeze mean that the image is torn. Swap on the device is written there as well, and what a
 * filesystem that cannot be frozen may do is in a warning of its own.
 */
async function isWatched(device: Device, stack: Stack): Promise<boolean> {
  if (device.kind === 'file') return false;
  const writable = filesystemsOn(stack, [device.kernelName]).filter((mount) => !mount.readOnly);
  if (writable.some((mount) => !freezable(mount.type))) return false;
  for (const path of await swapPaths())
    if ((await liesOn(stack, path, device.kernelName).catch(() => undefined)) !== undefined) return false;
  return true;
}

function refuseDoubt(plan: Plan, device: Device, options: JobOptions): void {
  if (plan.reason === null || options.fallback) return;
  throw new AgentError('CHAIN_IN_DOUBT', `${device.path} would need a ${plan.kind}: ${plan.reason}`, {
    hint: `start it without --no-fallback, or with --${plan.kind}`,
  });
}

/** The partitions' own maps are read as live or frozen where they are mounted themselves. */
function livePartitions(disk: Device, devices: readonly Device[]): number[] {
  return devices.flatMap(({ partition, mounts }) =>
    partition?.disk === disk.path && mounts.some((mount) => !mount.readOnly) ? [partition.start] : [],
  );
}

/**
 * Writable filesystems on the device or on anything that lies on it. Those that cannot be frozen become
 * warnings.
 */
function writableMounts(device: Device, stack: Stack, warnings: JobWarning[]): MountedFilesystem[] {
  const writable = filesystemsOn(stack, [device.kernelName]).filter((mount) => !mount.readOnly);
  for (const mount of writable)
    if (!freezable(mount.type))
      warnings.push({
        code: 'NOT_FROZEN',
        device: device.path,
        message: `${mount.type} at ${mount.path} cannot be frozen; what is written to it during the backup may be torn`,
      });
  return writable.filter((mount) => freezable(mount.type));
}

/**
 * An idle device is opened exclusively for the time of the job, so that nobody mounts it meanwhile. A device
 * that somebody holds without a mount of ours to freeze (a virtual machine, a database) is copied with a warning.
 */
async function holdIdle(device: Device, warnings: JobWarning[]): Promise<FileHandle | undefined> {
  if (device.kind === 'file') return undefined;
  try {
    return await open(device.path, constants.O_RDONLY | constants.O_EXCL);
  } catch (error) {
    const readOnly =
      device.readOnly || (device.mounts.length > 0 && device.mounts.every((mount) => mount.readOnly));
    if (errnoCode(error) !== 'EBUSY') throw error;
    if (!readOnly && device.filesystem?.type !== 'swap')
      warnings.push({
        code: 'IN_USE',
        device: device.path,
        message:
          `${device.path} is in use by something that cannot be frozen` +
          (device.holders.length > 0 ? ` (${device.holders.join(', ')})` : '') +
          '; what is written to it during the backup may be torn',
      });
    return undefined;
  }
}
