/**
 * Standing damage: damage that a check found and no later check cleared (docs/formats/vault.md, "Check"). Pure. A
 * check clears damage of its own level only, except that `read` includes `reachable`. A filesystem may be valid if a
 * chunk is lost, and all chunks may exist if the filesystem is invalid. A sample may read other chunks each time, so
 * it can find damage but clears none.
 */
import type { PointCheck, StoredCheck } from './checks.ts';

interface Finding {
  readonly check: StoredCheck;
  /** Undefined: one of the point's devices, but it is not known which one. */
  readonly path: string | undefined;
  readonly coverage: number;
}

/** Returns the checks whose damage stands. `checks` are in order of time, of any points. */
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

/** A check that read the chunks also proves that they are reachable. */
function speaksFor(level: PointCheck['level'], of: PointCheck['level']): boolean {
  return level === of || (level === 'read' && of === 'reachable');
}
