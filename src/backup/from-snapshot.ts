/**
 * The backup of devices that a temporary LVM snapshot gives the instant of: the snapshot is taken in the freeze
 * window, all that is in use is read from it afterwards, and it is removed as soon as it has been read. It is checked
 * when the last byte was read: what an overflowed snapshot returned is never believed.
 */
import { AgentError } from '../base/errors.ts';
import { acceptMap } from './mapping.ts';
import { beginChain } from './job-chain.ts';
import { firstPass } from './passes.ts';
import type { JobReporter } from './job-reporter.ts';
import { type JobUnit, missing, type UnitSnapshot } from './unit.ts';

/** Inside the freeze window, or as all of it where LVM freezes by itself. */
export async function takeSnapshot(unit: JobUnit): Promise<void> {
  const { snapshot, freezes } = unit.snapshot!;
  await snapshot.take();
  if (freezes) unit.status.freeze_ms = Math.round(snapshot.suspendedMs * 10) / 10;
}

/** Maps, sends what the target lacks, and removes the snapshot. Throws SNAPSHOT_OVERFLOW, SNAPSHOT_FAILED. */
export async function copySnapshot(unit: JobUnit, report: JobReporter): Promise<void> {
  const { pool, pair } = unit;
  const { snapshot } = unit.snapshot!;
  const done = new AbortController();
  let failure: AgentError | undefined;
  let opened = false;
  try {
    const path = await snapshot.open();
    opened = true;
    await pool.useSource(path);
    // It has room for so many writes, and each costs the volume a copy.
    pool.hurry();
    note(unit);
    snapshot.watch((error) => {
      if (error instanceof AgentError) failure = error;
      pool.stop();
    }, done.signal);
    await copy(unit, report);
    await snapshot.check();
  } catch (thrown) {
    if (failure !== undefined) throw failure;
    // What went wrong may be that it overflowed.
    if (opened && !cancelled(thrown)) await snapshot.check();
    throw thrown;
  } finally {
    done.abort();
    note(unit);
  }
  // Threads that have it open would keep it.
  await pool.useSource(pair.device.path);
  await leave(unit, report);
}

async function copy(unit: JobUnit, report: JobReporter): Promise<void> {
  const { pool } = unit;
  acceptMap(unit, await pool.map('frozen'));
  await beginChain(unit);
  unit.status.bytes_unsynced = missing(unit).bytes();
  if (unit.plan.kind === 'full') await pool.readZeroMap();
  pool.samples.choose(pool.used);
  await firstPass(unit, report);
}

async function leave(unit: JobUnit, report: JobReporter): Promise<void> {
  try {
    await unit.snapshot!.snapshot.remove();
  } catch (error) {
    if (!(error instanceof AgentError)) throw error;
    report.warn('SNAPSHOT_LEFT', error.message, unit.pair.device.path);
  }
}

function note(unit: JobUnit): void {
  const { snapshot } = unit.snapshot!;
  const { used, size } = snapshot.usage;
  unit.status.snapshot = { volume: snapshot.volume, kind: snapshot.room.kind, used, size };
}

function cancelled(thrown: unknown): boolean {
  return thrown instanceof AgentError && thrown.code === 'CANCELLED';
}

/** Devices whose instant is a snapshot, and all others. */
export function bySnapshot(units: readonly JobUnit[]): {
  readonly snapshots: (JobUnit & { readonly snapshot: UnitSnapshot })[];
  readonly others: JobUnit[];
} {
  const withSnapshot = (unit: JobUnit): unit is JobUnit & { readonly snapshot: UnitSnapshot } =>
    unit.snapshot !== undefined;
  return { snapshots: units.filter(withSnapshot), others: units.filter((unit) => !withSnapshot(unit)) };
}
