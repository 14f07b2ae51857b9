/**
 * The checks for one device and its target, and what is opened for them: threads and connection, chain, tracker,
 * and an exclusive hold on an idle device.
 */
import { constants } from 'node:fs';
import { type FileHandle, mkdir, open } from 'node:fs/promises';
import { join } from 'node:path';
import { Bitmap } from '../base/bitmap.ts';
import { MiB } from '../base/bytes.ts';
import { AgentError, errnoCode } from '../base/errors.ts';
import type { Device } from '../devices/device.ts';
import { type MountedFilesystem, type Stack, filesystemsOn } from '../devices/stacking.ts';
import { Chain, type ChainSubject } from '../tracking/chain.ts';
import { fingerprintUnit } from '../tracking/fingerprints.ts';
import type { Epoch, TrackedDevice, Tracker } from '../tracking/tracker.ts';
import { CopyPool } from './copy/pool.ts';
import { Feed } from './feed.ts';
import { freezable } from './freezable.ts';
import type { DevicePair, JobEnvironment, JobOptions } from './job.ts';
import { type Plan, decide } from './plan.ts';
import { refuseSelfTarget } from './self-target.ts';
import type { JobKind, JobWarning } from './status.ts';
import { parseTarget, targetName, undoMaking } from './targets.ts';
import { trackedDevice } from './tracked-device.ts';
import { type JobUnit, initialStatus } from './unit.ts';

/** Bytes that frozen passes of one job may keep in memory. */
const spoolBytes = 32 * MiB;

/** More would be read and sent for one used block otherwise. */
const largestUnit = 256 * 1024;

/** Units of the target that the drift check reads besides the superblocks' areas. */
const driftSamples = 64;

export interface UnitContext {
  readonly kind: JobKind;
  /** Devices in the job. */
  readonly pairs: number;
  readonly devices: readonly Device[];
  readonly stack: Stack;
  readonly options: JobOptions;
  readonly environment: JobEnvironment;
  readonly warnings: JobWarning[];
}

export async function prepareUnit(pair: DevicePair, context: UnitContext): Promise<JobUnit> {
  const { devices, stack, options, environment, warnings } = context;
  const { device } = pair;
  const target = parseTarget(pair.target);
  if (!device.backup.possible)
    throw new AgentError('DEVICE_BUSY', `${device.path} cannot be backed up: ${device.backup.how}`);
  // A file target is made when it is opened, so this comes first for it.
  if (target.kind === 'file') await refuseSelfTarget(target, device, stack);
  const mounts = writableMounts(device, stack, warnings);
  const undo: (() => Promise<void>)[] = [];
  const discard = async (): Promise<void> => {
    for (let next = undo.pop(); next !== undefined; next = undo.pop()) await next();
  };
  try {
    const hold = mounts.length === 0 ? await holdIdle(device, warnings) : undefined;
    if (hold !== undefined) undo.push(() => hold.close());
    const tracking = await startTracking(device, context, undo);
    const unit = tracking.tracker?.unit ?? untrackedUnit(device.size);
    const subject: ChainSubject = {
      uuid: device.filesystem?.uuid ?? '',
      path: device.path,
      size: device.size,
      partitionStart: device.partition?.start ?? 0,
      target: targetName(target),
    };
    const chains = await chainsDirectory(environment);
    const { chain, record } = await openChain(chains, subject, unit, undo);
    const compared = mounts.length > 0 && tracking.tracker === undefined;
    const kept = options.fingerprints && environment.offline !== true;
    const fingerprinted = context.kind !== 'full' || compared || kept || options.verify === 'full';
    const threads = context.pairs > 2 ? 1 : options.connections;
    const pool = new CopyPool({
      sourcePath: device.path,
      deviceSize: device.size,
      livePartitions: livePartitions(device, devices),
      target,
      threads,
      unit,
      fingerprintPath: fingerprinted ? chain.fingerprintPath : undefined,
      key: chain.key,
      rate: options.rate === undefined ? undefined : options.rate / context.pairs,
      onReadError: options.onReadError,
      spoolBytes: Math.floor(spoolBytes / context.pairs),
      reconnectMs: options.reconnectMs,
    });
    undo.push(await undoMaking(target), () => pool.close());
    const facts = await pool.open();
    if (target.kind === 'nbd') await refuseSelfTarget(target, device, stack);
    const plan = decide({
      wanted: context.kind,
      subject,
      record,
      targetSize: facts.size,
      drift: context.kind === 'full' || record?.state !== 'complete' ? undefined : await drift(pool, chain),
      tracked: tracking.tracker,
      untracked: tracking.why,
    });
    refuseDoubt(plan, device, options);
    return {
      pair,
      pool,
      chain,
      plan,
      tracking:
        tracking.tracker === undefined
          ? undefined
          : {
              feed: new Feed(tracking.tracker.tracker, tracking.tracker.device, chain, chains),
              epoch: tracking.tracker.epoch,
            },
      mounts,
      hold,
      close: async () => {
        await pool.close();
        await hold?.close();
        if (environment.offline === true) await chain.remove();
      },
      discard,
      map: undefined,
      status: {
        ...initialStatus(pair, targetName(target)),
        kind: plan.kind,
        fallback_reason: plan.reason,
        tracker: tracking.tracker?.tracker.kind ?? 'none',
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
function untrackedUnit(size: number): number {
  let unit = fingerprintUnit;
  while (unit < largestUnit && size / unit > 32 * MiB) unit *= 2;
  return unit;
}

function refuseDoubt(plan: Plan, device: Device, options: JobOptions): void {
  if (plan.reason === null || options.fallback) return;
  throw new AgentError('CHAIN_IN_DOUBT', `${device.path} would need a ${plan.kind}: ${plan.reason}`, {
    hint: `start it without --no-fallback, or with --${plan.kind}`,
  });
}

async function chainsDirectory(environment: JobEnvironment): Promise<string> {
  const directory = join(environment.stateDirectory, 'chains');
  await mkdir(directory, { recursive: true, mode: 0o700 });
  return directory;
}

/** The chain of this device and target, or a new one, which goes again where the job does not begin. */
async function openChain(
  chains: string,
  subject: ChainSubject,
  unit: number,
  undo: (() => Promise<void>)[],
): Promise<{ chain: Chain; record: Chain['record'] | undefined }> {
  const found = await Chain.open(chains, subject, unit);
  // The files of a chain are as long as its device: another size needs new ones.
  if (found?.record.size === subject.size) return { chain: found, record: found.record };
  const chain = await Chain.create(chains, subject, { targetSize: 0, unit });
  undo.push(async () => {
    if (chain.record.state === 'incomplete') await chain.remove();
  });
  return { chain, record: found?.record };
}

interface StartedTracking {
  readonly tracker:
    | {
        readonly tracker: Tracker;
        readonly device: TrackedDevice;
        readonly epoch: Epoch;
        readonly doubt: string | undefined;
        readonly unit: number;
      }
    | undefined;
  readonly why: string;
}

async function startTracking(
  device: Device,
  { devices, options, environment }: UnitContext,
  undo: (() => Promise<void>)[],
): Promise<StartedTracking> {
  const described = trackedDevice(device, devices);
  if (described === undefined || environment.chooseTracker === undefined)
    return { tracker: undefined, why: 'nothing tracks what is written to it' };
  const { tracker, why } = await environment.chooseTracker(described, options.tracker);
  if (tracker === undefined) return { tracker, why };
  const before = tracker.state(described);
  const { epoch, doubt } = await tracker.track(described);
  if (before === undefined) undo.push(() => tracker.untrack(described));
  // A map coarser than the fingerprints' unit could not say which part of it to send.
  const unit = Math.min(tracker.state(described)?.unit ?? fingerprintUnit, fingerprintUnit);
  return { tracker: { tracker, device: described, epoch, doubt, unit }, why };
}

/**
 * Reads some of what the target is known to hold, always the areas of the superblocks, and compares it with the
 * fingerprints. The reason where it differs.
 */
async function drift(pool: CopyPool, chain: Chain): Promise<string | undefined> {
  if (!pool.facts.abilities.read) return 'the target cannot be read, so its content is not known';
  const { size, unit } = chain.pending;
  const set = new Bitmap(size, unit);
  const units = Math.ceil(size / fingerprintUnit);
  const step = Math.max(1, Math.floor(units / driftSamples));
  const start = Math.floor(Math.random() * step);
  const places = [0, 1, units - 1];
  for (let place = start; place < units; place += step) places.push(place);
  for (const place of places) set.mark(place * fingerprintUnit, fingerprintUnit);
  const before = pool.counters().verified;
  const { mismatches, firstMismatch } = await pool.verify(knownUnits(chain, set));
  if (pool.counters().verified === before)
    return 'the last backup took no fingerprints, so that the target cannot be checked';
  return mismatches === 0
    ? undefined
    : `the target does not hold what the last backup left there (${mismatches} of the places looked at differ, the first at ${firstMismatch})`;
}

/** The set without the fingerprint units of which the target lacks a part: their fingerprints do not count. */
export function knownUnits(chain: Chain, set: Bitmap): Bitmap {
  const known = set.clone();
  for (const { offset, length } of chain.pending.extents()) {
    const first = Math.floor(offset / fingerprintUnit) * fingerprintUnit;
    const end = Math.ceil((offset + length) / fingerprintUnit) * fingerprintUnit;
    known.clear(first, end - first);
  }
  return known;
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
