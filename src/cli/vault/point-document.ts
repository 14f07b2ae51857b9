/** Makes the `--json` document of a recovery point. */
import { type StoredCheck, listChecks } from '../../vault/points/checks.ts';
import type { Point, PointDevice } from '../../vault/points/point.ts';
import { listProtected } from '../../vault/points/points.ts';
import { standingDamage } from '../../vault/points/standing-damage.ts';
import { type StoredTimes, storedTime, timeDoubt } from '../../vault/points/times.ts';
import type { Vault } from '../../vault/vault.ts';
import type { CheckDocument, PointDeviceDocument, PointDocument } from '../../api/vault/output/points.ts';

export interface PointFacts {
  readonly protected: ReadonlySet<string>;
  readonly checks: readonly StoredCheck[];
  readonly stored: StoredTimes;
}

export async function readFacts(
  vault: Vault,
  signal: AbortSignal,
  point?: string,
): Promise<Omit<PointFacts, 'stored'>> {
  const [protectedIds, { checks }] = await Promise.all([
    listProtected(vault, { signal }),
    listChecks(vault, point, { signal }),
  ]);
  return { protected: protectedIds, checks };
}

export function pointDocument(point: Point, facts: PointFacts): PointDocument {
  const { id, finished, started, job, kind, agent, machine, warnings, devices } = point;
  const checks = facts.checks.filter((each) => each.point === id);
  const damage = standingDamage(checks).at(-1);
  const arrived = storedTime(id, facts.stored);
  return {
    ...{ id, finished, started, job, kind, agent },
    machine: { id: machine.id, name: machine.name, boot: machine.boot },
    protected: facts.protected.has(id),
    stored: arrived === undefined ? null : new Date(arrived).toISOString(),
    time_doubt: timeDoubt(point, { now: Date.now(), stored: facts.stored }) ?? null,
    checks: lastChecks(checks),
    damage: damage === undefined ? null : checkDocument(damage),
    warnings: warnings.map((each) => ({ ...each })),
    devices: devices.map(deviceDocument),
  };
}

function deviceDocument(device: PointDevice): PointDeviceDocument {
  const { path, size, sector_size, filesystem, partition, used_bytes, stored_bytes } = device;
  const { freeze_ms, consistency, tracker, kind, read_errors, read_only } = device;
  return {
    ...{ path, size, sector_size, filesystem, partition, used_bytes, stored_bytes },
    identity: device.identity ?? null,
    ...{ freeze_ms, consistency, tracker, kind, read_errors, read_only },
  };
}

/** `checks` are in order of time. */
function lastChecks(checks: readonly StoredCheck[]): CheckDocument[] {
  const last = new Map<string, CheckDocument>();
  for (const check of checks) last.set(check.level, checkDocument(check));
  return [...last.values()].sort((a, b) => b.at.localeCompare(a.at));
}

function checkDocument({ level, at, coverage, outcome, problems }: StoredCheck): CheckDocument {
  return { level, at, coverage, outcome, problems };
}
