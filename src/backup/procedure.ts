/**
 * A backup from the first read to the last flush, for all devices of a job: passes (passes.ts), one freeze for
 * all of them, and the proof at the end.
 */
import { GiB, formatBytes } from '../base/bytes.ts';
import { AgentError } from '../base/errors.ts';
import { Bitmap } from '../base/bitmap.ts';
import { refuseChanged } from '../devices/attachment.ts';
import { lookAtWrites, nothingWritten } from '../devices/write-watch.ts';
import { roomNeeded, toRead } from './finding.ts';
import { spoolFull } from './copy/spool.ts';
import { itemSize, spread } from './copy/segments.ts';
import { endHeld } from './freed.ts';
import { freezeWindow } from './freeze-window.ts';
import { bySnapshot, copySnapshot, takeSnapshot } from './from-snapshot.ts';
import { proveInstant } from './idle-passes.ts';
import type { JobEnvironment, JobOptions } from './job.ts';
import { beginChain, completeChain } from './job-chain.ts';
import type { JobReporter } from './job-reporter.ts';
import { acceptMap, mapUnit, readMap, takeFrozen } from './mapping.ts';
import { refuseNewWriters } from './mounts-now.ts';
import { anotherPass, firstPass, furtherPasses, lastPass } from './passes.ts';
import { checkPrediction, checkTrackedPrediction, formatMs, predictFreeze } from './prediction.ts';
import { knownUnits } from './prepare-chain.ts';
import { noteKept } from './send-missing.ts';
import type { JobStatus } from './status.ts';
import { type JobMember, type JobUnit, isLive, missing } from './unit.ts';
import type { FinishedImage } from './vault-job.ts';

/** Bytes; ten minutes at 100 MB/s. */
const readBackMost = 64 * GiB;

export interface JobIdentity {
  readonly uuid: string;
  readonly status: () => JobStatus;
}

export async function runBackup(
  job: JobIdentity,
  units: readonly JobUnit[],
  options: JobOptions,
  environment: JobEnvironment,
  report: JobReporter,
  signal: AbortSignal,
): Promise<void> {
  report.phase('mapping');
  for (const { plan, pair } of units)
    if (plan.reason !== null)
      report.warn('FELL_BACK', `${plan.kind} instead: ${plan.reason}`, pair.device.path);
  const { snapshots, others } = bySnapshot(units);
  await together(others, async (unit) => {
    await mapUnit(unit, options, environment, report, signal);
    if (!isLive(unit)) warnOfMap(unit, report);
    await beginChain(unit);
    unit.status.bytes_unsynced = missing(unit).bytes();
    if (unit.plan.kind === 'full') await unit.pool.readZeroMap();
    unit.pool.samples.choose(unit.pool.used);
  });

  report.phase('copying');
  await together(others, (unit) => firstPass(unit, report));
  await together(others, (unit) => furtherPasses(unit, options, environment, report, signal));

  const live = units.filter(isLive);
  const idle = units.filter((unit) => !isLive(unit));
  if (live.length > 0) await frozenPass(live, options, environment, report, signal);
  let instant = new Date();
  if (snapshots.length > 0) {
    report.phase('copying');
    await together(snapshots, async (unit) => {
      await copySnapshot(unit, report);
      warnOfMap(unit, report);
    });
  }

  report.phase('finishing');
  await refuseNewWriters(units);
  await together(idle, async (unit) => {
    await proveInstant(unit, report, signal);
    refuseChanged(unit.pair.device, unit.attachment);
  });
  if (live.length === 0) instant = new Date();
  for (const unit of units) settle(unit);
  await together(units, (unit) => endHeld(unit, options, report));
  await together(units, seal);

  report.phase('verifying');
  await together(units, (unit) => verify(unit, options.verify, report));
  await publish(units, job, instant);
  for (const unit of units) await completeChain(unit, job.uuid);
}

/** Runs `work` for all units side by side; the first failure stops the others, and all have ended after it. */
export async function together<Member extends JobMember>(
  units: readonly Member[],
  work: (unit: Member) => Promise<void>,
): Promise<void> {
  let first: { error: unknown } | undefined;
  await Promise.all(
    units.map(async (unit) => {
      try {
        await work(unit);
      } catch (error) {
        if (first !== undefined) return;
        first = { error };
        for (const other of units) if (other !== unit) other.pool.stop();
      }
    }),
  );
  if (first !== undefined) throw first.error;
}

function warnOfMap(unit: JobUnit, report: JobReporter): void {
  const { map, pair } = unit;
  if (map === undefined) return;
  for (const message of map.warnings)
    report.warn(map.everything ? 'EVERYTHING_USED' : 'FILESYSTEM_WARNING', message, pair.device.path);
}

/** What the freeze has to read: what is missing if a tracker tells, otherwise all that is in use. Throws FREEZE_TOO_LONG. */
async function refuseLongFreeze(live: readonly JobUnit[], maxFreezeMs: number): Promise<void> {
  if (live.length === 0) return;
  const devices = [];
  // The rounds that have shown this speed ran side by side, as the freeze reads: the longest counts.
  const tracked = { bytes: 0, seconds: 0 };
  for (const { tracking, pool } of live)
    if (tracking === undefined) devices.push({ bytes: pool.used.bytes(), rate: await pool.measureReading() });
  for (const unit of live.filter(({ tracking }) => tracking !== undefined)) {
    const set = toRead(unit);
    tracked.bytes += set.bytes();
    tracked.seconds = Math.max(tracked.seconds, await unit.pool.secondsToKeep(set));
  }
  const all = predictFreeze(
    [...devices, { bytes: tracked.bytes, rate: tracked.bytes / tracked.seconds }],
    live.reduce((sum, { mapMs }) => sum + mapMs, 0),
  );
  if (live.some((unit) => unit.tracking === undefined)) checkPrediction(all, live, maxFreezeMs);
  else checkTrackedPrediction(all, live, maxFreezeMs);
}

/** Warns if the freeze was so long that the next one may be too long. Without a tracker its length is no surprise. */
function warnOfLength(units: readonly JobUnit[], maxFreezeMs: number, report: JobReporter): void {
  const tracked = units.filter(({ tracking }) => tracking !== undefined);
  const ms = Math.max(0, ...tracked.map(({ status }) => status.freeze_ms ?? 0));
  if (ms <= maxFreezeMs / 2) return;
  report.warn(
    'CANNOT_CONVERGE',
    `so much was written to ${tracked.map(({ pair }) => pair.device.path).join(', ')} that the freeze lasted ${formatMs(ms)} ` +
      `of the ${formatMs(maxFreezeMs)} allowed; allow more with --max-freeze, or start the backup when less is written`,
  );
}

/** Throws FREEZE_TOO_LONG if it is clear already that memory cannot hold what the freeze will find. */
function refuseWithoutRoom(
  units: readonly JobUnit[],
  { mayOverflow }: { readonly mayOverflow: boolean },
): void {
  const bound = units.filter(
    (unit) => unit.tracking !== undefined && !(mayOverflow && unit.pool.canOverflow),
  );
  const bytes = bound.reduce((sum, unit) => sum + roomNeeded(unit), 0);
  const [first] = bound;
  if (first !== undefined && bytes > first.pool.roomLeft)
    throw spoolFull(first.pool.targetName, first.pool.roomLeft);
}

/** Freezes of one job, at most: before each but the first there is another pass. */
const freezeTries = 3;

interface FrozenResult {
  /** All that the target lacks of the frozen device. */
  readonly kept: Bitmap;
  readonly overflow: number;
  readonly resendable: boolean;
  /** Something wrote to the device although its filesystems were frozen. */
  readonly written: boolean;
}

async function frozenPass(
  live: readonly JobUnit[],
  options: JobOptions,
  environment: JobEnvironment,
  report: JobReporter,
  signal: AbortSignal,
): Promise<void> {
  const { snapshots, others } = bySnapshot(live);
  // What is written from now on lengthens the freeze.
  for (const { pool } of others) pool.hurry();
  if (others.some(({ tracking }) => tracking === undefined))
    await refuseLongFreeze(others, options.maxFreezeMs);
  let results: Map<JobUnit, FrozenResult> | undefined;
  for (let tries = 1; results === undefined; tries++) {
    const last =
      tries === freezeTries || snapshots.length > 0 || others.some(({ tracking }) => tracking === undefined);
    try {
      results = await freezeOnce(live, { mayOverflow: last }, options, environment, report, signal);
    } catch (error) {
      if (last || !isWorthAnotherTry(error)) throw error;
      environment.log.info({ tries, reason: error.message }, 'another pass before the next freeze');
      report.phase('copying');
      await together(others, (unit) => anotherPass(unit, report));
    }
  }
  report.phase('finishing');
  warnOfLength(others, options.maxFreezeMs, report);
  await together(others, async (unit) => {
    warnOfMap(unit, report);
    const result = results.get(unit);
    if (result !== undefined) await sendKept(unit, result, report);
    if (result?.written === true) warnOfWriter(unit, report);
  });
}

/** The freeze would be too long, or was: less may be written next time. */
function isWorthAnotherTry(error: unknown): error is AgentError {
  return error instanceof AgentError && (error.code === 'FREEZE_TOO_LONG' || error.code === 'FREEZE_TIMEOUT');
}

/**
 * One freeze of all. Throws FREEZE_TOO_LONG if it would be too long, or memory cannot hold what it finds, and
 * FREEZE_TIMEOUT if it lasted too long.
 */
async function freezeOnce(
  live: readonly JobUnit[],
  { mayOverflow }: { readonly mayOverflow: boolean },
  options: JobOptions,
  environment: JobEnvironment,
  report: JobReporter,
  signal: AbortSignal,
): Promise<Map<JobUnit, FrozenResult>> {
  const { snapshots, others } = bySnapshot(live);
  const results = new Map<JobUnit, FrozenResult>();
  let full: AgentError | undefined;
  const start = performance.now();
  // After a timeout the copying threads may still be reading.
  let looking: Promise<unknown> = Promise.resolve();
  await freezeWindow(
    live,
    options,
    environment,
    report,
    {
      before: async () => {
        await together(live, (unit) => lastPass(unit, report));
        refuseWithoutRoom(others, { mayOverflow });
        await refuseLongFreeze(others, options.maxFreezeMs);
        for (const { snapshot } of snapshots) await snapshot.snapshot.record();
      },
      look: () => {
        const look = together(live, async (unit) => {
          if (unit.snapshot !== undefined) return takeSnapshot(unit);
          try {
            results.set(unit, await lookOnce(unit, { mayOverflow }, report));
          } catch (error) {
            // The other devices have not failed: they get another try, too.
            if (!(error instanceof AgentError && error.code === 'FREEZE_TOO_LONG')) throw error;
            full = error;
          }
        });
        looking = look.catch(() => undefined);
        return look;
      },
    },
    signal,
  ).finally(() => looking);
  environment.log.info({ ms: performance.now() - start }, 'freeze window is over');
  if (full !== undefined) throw full;
  return results;
}

function warnOfWriter({ pair }: JobUnit, report: JobReporter): void {
  const { path } = pair.device;
  report.warn(
    'NOT_ONE_INSTANT',
    `${path} was written to although its mounted filesystems were frozen; the image may hold blocks of different moments`,
    path,
  );
}

/** What one device needs inside the freeze: take, then read. */
async function lookOnce(
  unit: JobUnit,
  { mayOverflow }: { readonly mayOverflow: boolean },
  report: JobReporter,
): Promise<FrozenResult> {
  const { pool, chain, pair } = unit;
  unit.status.pass++;
  const before = unit.watched ? await lookAtWrites(pair.device) : undefined;
  const resendable = !pool.hasUnconfirmed;
  await takeFrozen(unit, report);
  acceptMap(unit, await readMap(unit, 'frozen'));
  const set = missing(unit);
  const { kept, overflow } =
    unit.tracking === undefined
      ? await pool.freezeComparing(set, pool.used, { mayOverflow })
      : { kept: set, ...(await pool.freeze(set, { mayOverflow })) };
  chain.pending.or(kept);
  const written =
    before !== undefined && nothingWritten(pair.device, before, await lookAtWrites(pair.device)) === false;
  refuseChanged(pair.device, unit.attachment);
  return { kept, overflow, resendable: resendable && overflow === 0, written };
}

async function sendKept(
  unit: JobUnit,
  { kept, overflow, resendable }: FrozenResult,
  report: JobReporter,
): Promise<void> {
  const { chain, pool, status } = unit;
  status.bytes_unsynced = kept.bytes();
  if (unit.tracking === undefined) await chain.savePending();
  else await unit.tracking.feed.secure();
  if (overflow > 0)
    report.warn(
      'FREEZE_OVERFLOW',
      `${formatBytes(overflow)} more had changed than memory may hold, and went to the target while the filesystem ` +
        `was frozen (${formatMs(status.freeze_ms ?? 0)})`,
      unit.pair.device.path,
    );
  const known = await pool.sendSpool(kept, resendable);
  unit.recent.note(known);
  await noteKept(unit, kept);
}

/** What is true of the device's lines once everything has been sent and flushed. */
function settle(unit: JobUnit): void {
  unit.status.read_errors = mergeRecords(unit.pool.readErrors);
  unit.status.bytes_unsynced = 0;
  unit.status.freeze_ms ??= 0;
}

async function verify(unit: JobUnit, level: JobOptions['verify'], report: JobReporter): Promise<void> {
  const { pool, chain, pair } = unit;
  if (level === 'none') return;
  if (!pool.facts.abilities.read) {
    report.warn('NOT_VERIFIED', `nothing was read back from ${pool.targetName}`, pair.device.path);
    return;
  }
  try {
    pool.forgetSamples(chain.pending);
    await pool.checkSamples();
    const wanted = level === 'full' ? pool.used : sentBeforeReconnect(pool);
    if (wanted === undefined) return;
    const { mismatches, firstMismatch } = await pool.verify(knownUnits(chain, wanted));
    if (mismatches > 0)
      throw new AgentError(
        'TARGET_MISMATCH',
        `${pool.targetName} returns other data than was written to it in ${mismatches} places, the first at ${firstMismatch}`,
        { hint: 'do not trust this image; check the disk and the memory of the receiver' },
      );
  } catch (error) {
    // What was believed of the target is wrong: the next backup has to be a full one.
    if (error instanceof AgentError && error.code === 'TARGET_MISMATCH')
      await chain.save({ state: 'incomplete' });
    throw error;
  }
}

/**
 * What samples cannot prove of a server that was lost and came back: that it has all of what it had confirmed before.
 * That is read back, up to `readBackMost` bytes of it, evenly spread.
 */
function sentBeforeReconnect({ doubtful, used, fingerprinted }: JobUnit['pool']): Bitmap | undefined {
  if (doubtful === undefined || !fingerprinted) return undefined;
  const set = new Bitmap(used.size, used.unit);
  const wanted =
    doubtful.bytes() <= readBackMost ? doubtful.extents() : spread(doubtful, readBackMost / itemSize);
  for (const { offset, length } of wanted) set.mark(offset, length);
  return set;
}

/** Where the target is a vault: everything is durable there, but nobody's yet. */
async function seal({ pool, status, image }: JobUnit): Promise<void> {
  if (image === undefined) return;
  status.bytes_stored = (await pool.seal()).stored;
}

/** Where the target is a vault: the maps of the devices, and the one recovery point that names them. */
async function publish(units: readonly JobUnit[], job: JobIdentity, instant: Date): Promise<void> {
  const byVault = Map.groupBy(units, ({ image }) => image?.job);
  for (const [vault, members] of byVault) {
    if (vault === undefined) continue;
    const images = [];
    for (const unit of members) {
      const built = await unit.pool.buildMap(touched(unit));
      images.push({ device: unit.pair.device, status: unit.status, built, taken: howTaken(unit) });
    }
    const bases = await vault.publish(images, job.status(), instant);
    for (const [i, unit] of members.entries()) {
      unit.base = bases[i];
      unit.status.point = bases[i]?.point ?? null;
    }
  }
}

function howTaken({ snapshot, mounts }: JobUnit): FinishedImage['taken'] {
  if (snapshot !== undefined) return 'snapshot';
  return mounts.length > 0 ? 'frozen' : 'idle';
}

/** What was written in this job, and what the image that it builds on holds although it is in use no more. */
function touched({ chain, image, pool }: JobUnit): Bitmap {
  const set =
    image === undefined ? new Bitmap(pool.used.size, pool.used.unit) : pool.granular(image.held).clone();
  set.andNot(pool.granular(pool.used));
  if (chain.unpublished !== undefined) set.or(chain.unpublished);
  return set;
}

/** Sorted, and joined where passes met the same bad sectors. */
function mergeRecords(
  records: readonly { offset: number; length: number }[],
): { offset: number; length: number }[] {
  const result: { offset: number; length: number }[] = [];
  for (const record of [...records].sort((a, b) => a.offset - b.offset)) {
    const last = result.at(-1);
    if (last !== undefined && record.offset <= last.offset + last.length)
      last.length = Math.max(last.length, record.offset + record.length - last.offset);
    else result.push({ ...record });
  }
  return result;
}
