/**
 * Damage that stands: what checks of points found, and no later one has cleared (docs/formats/vault.md, "Check"). Pure.
 * A check speaks for its level alone: a filesystem may be well where a chunk is lost, and every chunk may be there
 * where the filesystem is not well. A sample may look at other chunks each time, so it finds damage and clears none.
 */
import type { PointCheck, StoredCheck } from './checks.ts';

interface Finding {
  readonly check: StoredCheck;
  /** Undefined: of one of the point's devices, and nobody knows which. */
  readonly path: string | undefined;
  readonly coverage: number;
}

/** Those of the checks (by time, of any points) that found damage which stands. */
export function standingDamage(checks: readonly StoredCheck[]): StoredCheck[] {
  let findings: Finding[] = [];
  for (const check of checks) {
    findings = findings.filter((each) => each.check.point !== check.point || !clears(check, each));
    findings.push(...findingsOf(check));
  }
  return [...new Set(findings.map(({ check }) => check))];
}

function findingsOf(check: StoredCheck): Finding[] {
  const { outcome, coverage, devices } = check;
  if (devices === undefined) return outcome === 'damaged' ? [{ check, path: undefined, coverage }] : [];
  return devices
    .filter((device) => device.outcome === 'damaged')
    .map((device) => ({ check, path: device.path, coverage: device.coverage }));
}

function clears({ level, outcome, coverage, devices }: StoredCheck, finding: Finding): boolean {
  if (!speaksFor(level, finding.check.level)) return false;
  const device = devices?.find(({ path }) => path === finding.path);
  if (device === undefined) return outcome === 'whole' && coverage === 1;
  const isSample = level === 'read' && device.coverage < 1;
  return device.outcome === 'whole' && device.coverage >= finding.coverage && !isSample;
}

/** What was read was within reach. */
function speaksFor(level: PointCheck['level'], of: PointCheck['level']): boolean {
  return level === of || (level === 'read' && of === 'reachable');
}
