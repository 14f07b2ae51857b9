/**
 * The checks for one device and its target, and the resources opened for them: threads and connection, chain, tracker,
 * and an exclusive hold on an idle device.
 */
import { AgentError } from '../../base/errors.ts';
import type { Device } from '../../devices/device.ts';
import { expectedFilesystems } from '../../devices/expected-filesystems.ts';
import type { Stack } from '../../devices/stacking.ts';
import { openWriteCounters } from '../../devices/write-counters.ts';
import { AllocationMap } from '../allocation-map.ts';
import { CopyPool } from '../copy/pool.ts';
import type { SpoolRoom } from '../copy/spool-room.ts';
import { parseTarget, targetName, undoMaking } from '../copy/targets.ts';
import type { DeviceBackup, Instant } from '../device-backup.ts';
import { impactLevels } from '../impact.ts';
import { initialStatus } from '../initial-status.ts';
import type { DevicePair, JobEnvironment, JobOptions } from '../job.ts';
import { DirtyMapConsumer } from '../ledger/dirty-map-consumer.ts';
import { ImageContents, PointContents } from '../ledger/target-contents.ts';
import { TargetLedger, type Tracking } from '../ledger/target-ledger.ts';
import type { BackupPlan } from '../plan.ts';
import { FrozenInstant } from '../run/frozen-instant.ts';
import { IdleInstant } from '../run/idle-instant.ts';
import { SnapshotInstant } from '../run/snapshot-instant.ts';
import type { BackupKind, JobWarning } from '../../api/job-status.ts';
import type { VaultJobs } from '../vault/vault-job.ts';
import { checkDrift } from './check-drift.ts';
import { chooseKind, isBehind } from './choose-kind.ts';
import { hasClone } from './clones.ts';
import { type FoundChain, chainSubject, chainsDirectory, openChain } from './open-chain.ts';
import { refuseOwn } from './own-devices.ts';
import { prepareSnapshot } from './prepare-snapshot.ts';
import { refuseSelfTarget, refuseSelfVault } from './self-target.ts';
import { attachmentOf, holdIdle, isWatched, livePartitions, writableMounts } from './source-device.ts';
import { type StartedTracking, startTracking } from './start-tracking.ts';
import { untrackedUnit } from './untracked-unit.ts';

export interface PrepareContext {
  readonly job: string;
  /** Number of the pair in the job, from 0. */
  readonly number: number;
  readonly kind: BackupKind;
  /** Number of devices in the job. */
  readonly pairs: number;
  readonly devices: readonly Device[];
  readonly stack: Stack;
  readonly options: JobOptions;
  readonly environment: JobEnvironment;
  readonly warnings: JobWarning[];
  readonly vaults: VaultJobs;
  /** Memory for blocks that wait for the thaw. */
  readonly room: SpoolRoom;
  /** Connections for each device. */
  readonly connections: number;
  /** Ends the checks. */
  readonly signal: AbortSignal;
}

export async function prepareDevice(pair: DevicePair, context: PrepareContext): Promise<DeviceBackup> {
  const { devices, stack, options, environment, warnings, vaults, signal } = context;
  signal.throwIfAborted();
  const { device } = pair;
  const target = parseTarget(pair.target);
  if (!device.backup.possible)
    throw new AgentError('DEVICE_BUSY', `${device.path} cannot be backed up: ${device.backup.how}`);
  await refuseOwn(device, context, environment);
  // Opening a file target creates the file, so this check comes before.
  if (target.kind === 'file') await refuseSelfTarget(target, device, stack);
  const mounts = writableMounts(device, stack, warnings);
  // If a step throws, or the job does not start, all earlier steps are undone.
  await using undo = new AsyncDisposableStack();
  const attachment = attachmentOf(device);
  const isLive = mounts.length > 0;
  const hold = isLive ? undefined : await holdIdle(device, warnings);
  if (hold !== undefined) undo.defer(() => hold.close());
  const tracking = await startTracking(device, context, undo);
  const isTracked = tracking.tracked !== undefined;
  const vault = target.kind === 'vault' ? await vaults.open(target.location, environment) : undefined;
  if (vault?.directory !== undefined) await refuseSelfVault(vault.directory, device, stack);
  const unit = tracking.unit ?? Math.max(untrackedUnit(device.size), vault?.chunkSize ?? 0);
  const subject = chainSubject(device, target, await hasClone(device, context, environment));
  const chains = await chainsDirectory(environment);
  const found = await openChain(chains, subject, { unit, isShared: vault !== undefined, undo });
  const { chain, record, unknown } = found;
  const base = context.kind === 'full' ? undefined : await vault?.findBase(record);
  const knownBase = base === undefined || 'why' in base ? undefined : base;
  const image = vault?.image(chain, knownBase);
  if (image !== undefined) undo.defer(() => image.end());
  const isComparable = needsFingerprints(context, { isTracked, isLive });
  const pool = new CopyPool({
    sourcePath: device.path,
    deviceSize: device.size,
    livePartitions: livePartitions(device, devices),
    expected: expectedFilesystems(device, devices),
    target: image === undefined || target.kind !== 'vault' ? target : { ...target, making: image.making },
    threads: context.connections,
    unit,
    fingerprintPath: isComparable ? chain.fingerprintPath : undefined,
    key: chain.key,
    rate: options.rate === undefined ? undefined : options.rate / context.pairs,
    onReadError: options.onReadError,
    room: context.room,
    reconnectMs: options.reconnectMs,
    impact: impactLevels[options.impact],
    writes: openWriteCounters(device),
  });
  undo.defer(await undoMaking(target));
  undo.defer(() => pool.close());
  pool.stopWith(signal);
  const facts = await pool.open();
  if (target.kind === 'nbd') await refuseSelfTarget(target, device, stack);
  const snapshot =
    isLive && !isTracked
      ? await prepareSnapshot(device, { ...context, mounts, target, vaultDirectory: vault?.directory })
      : { why: '' };
  const plan = chooseKind({
    wanted: context.kind,
    subject,
    record,
    targetSize: facts.size,
    drift:
      context.kind === 'full' || record?.state !== 'complete'
        ? undefined
        : base !== undefined && 'why' in base
          ? base.why
          : await checkDrift(pool, chain, {
              isReadWholly: isBehind({ record, tracked: tracking.tracked }),
            }),
    unknown,
    tracked: tracking.tracked,
    untracked: tracking.why,
  });
  refuseDoubt(plan, device, options);
  const ledger = new TargetLedger({
    ...found,
    contents:
      vault === undefined
        ? new ImageContents(chain)
        : new PointContents(chain, { hasBase: knownBase !== undefined }),
    tracking: consumerOf(tracking, found, { chains, environment }),
    recent: plan.kind === 'full' ? [] : record?.recent,
    target: () => pool.facts,
    unreadable: () => pool.readErrors,
  });
  // Otherwise the fingerprints are valid only after the target has been read (run/find-changes.ts).
  if (plan.readTarget !== true) pool.expect(ledger.expectation());
  const watched = await isWatched(device, stack);
  const steps = undo.move();
  return {
    pair,
    pool,
    ledger,
    plan,
    map: new AllocationMap(),
    instant: instantOf(snapshot, isLive),
    vault,
    mounts,
    isLive,
    totalBytes: () => ledger.used.bytes(),
    hold,
    attachment,
    isWatched: watched,
    isComparable,
    noSnapshot: snapshot instanceof SnapshotInstant ? '' : snapshot.why,
    close: async () => {
      await pool.close();
      await hold?.close();
      if (snapshot instanceof SnapshotInstant) await removeSnapshot(snapshot, environment);
      await image?.end();
      if (environment.offline === true) await chain.remove();
    },
    discard: () => steps.disposeAsync(),
    status: {
      ...initialStatus(pair, targetName(target)),
      kind: plan.kind,
      fallback_reason: plan.reason,
      tracker: tracking.tracked?.tracker.kind ?? 'none',
    },
  };
}

/** A device that nothing tracks is compared if its write counters do not prove that it was idle. */
function needsFingerprints(
  { kind, options, environment }: PrepareContext,
  { isTracked, isLive }: { readonly isTracked: boolean; readonly isLive: boolean },
): boolean {
  if (kind !== 'full' || options.verify === 'full' || (isLive && !isTracked)) return true;
  return environment.offline !== true && (options.fingerprints || !isTracked);
}

function consumerOf(
  { tracked, device }: StartedTracking,
  { chain }: FoundChain,
  { chains, environment }: { readonly chains: string; readonly environment: JobEnvironment },
): Tracking | undefined {
  if (tracked === undefined) return undefined;
  const { tracker, epoch } = tracked;
  const consumer = new DirtyMapConsumer({ tracker, device, tracked, chain, chains, log: environment.log });
  return { consumer, epoch };
}

function instantOf(snapshot: SnapshotInstant | { readonly why: string }, isLive: boolean): Instant {
  if (snapshot instanceof SnapshotInstant) return snapshot;
  return isLive ? new FrozenInstant() : new IdleInstant();
}

/** Used after a failed job. If the snapshot cannot be removed now, the next daemon removes it. */
async function removeSnapshot({ snapshot }: SnapshotInstant, { log }: JobEnvironment): Promise<void> {
  await snapshot.remove().catch((err: unknown) => {
    log.error({ err, snapshot: snapshot.volume }, 'the snapshot could not be removed');
  });
}

function refuseDoubt(plan: BackupPlan, device: Device, options: JobOptions): void {
  if (plan.reason === null || options.fallback) return;
  throw new AgentError('CHAIN_IN_DOUBT', `${device.path} would need a ${plan.kind}: ${plan.reason}`, {
    hint: `start it without --no-fallback, or with --${plan.kind}`,
  });
}
