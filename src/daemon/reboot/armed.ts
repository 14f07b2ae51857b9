/**
 * Whether the next clean shutdown will be recorded, and whether the record will be used at the boot after it. The
 * states of the units of packaging/ tell this, as systemd reports them. An enabled unit that was not started, or whose
 * start failed, runs no ExecStop at a shutdown.
 */
import { access, constants, stat } from 'node:fs/promises';
import { toAgentError } from '../../base/errors.ts';
import { outputOf } from '../../linux/program.ts';
import type { ContinuityDocument } from '../../api/tracking.ts';

const earlyUnits = ['dattod-early.service', 'dattod-early-root.service'];
const saveUnit = 'dattod-save.service';
const hook = '/usr/lib/systemd/system-shutdown/dattod';
const manual = 'see "Over a reboot" in docs/tracking.md';

/** Properties of a unit, by their names in `systemctl show`. */
export type UnitState = Readonly<Record<string, string>>;

export interface ContinuityFacts {
  readonly units: readonly UnitState[];
  /** The record has a device of its own, so root can be recorded too. */
  readonly recordDevice: boolean;
  /** The program that records root is installed in the directory of systemd-shutdown. */
  readonly hook: boolean;
}

/** Returns the continuity for `GET /v1/tracking`. `place` is the path of the record. Never rejects. */
export async function readContinuity(enabled: boolean, place: string): Promise<ContinuityDocument> {
  if (!enabled) return { armed: false, why: 'the configuration has "reboot_continuity": false', help: null };
  try {
    await access('/run/systemd/system');
  } catch {
    return {
      armed: false,
      why: 'systemd does not run this machine, so nothing is known of its shutdown',
      help: `run 'dattod reboot save' when the filesystems are unmounted, and 'dattod reboot resume' before they are mounted; ${manual}`,
    };
  }
  try {
    const names = [...earlyUnits, saveUnit];
    const properties = 'Id,LoadState,ActiveState,UnitFileState,Result';
    const text = await outputOf('systemctl', ['show', `--property=${properties}`, ...names], {
      killAfterMs: 5_000,
    });
    return continuityOf({
      units: parseUnits(text ?? ''),
      recordDevice: await stat(place).then(
        (found) => found.isBlockDevice(),
        () => false,
      ),
      hook: await access(hook, constants.X_OK).then(
        () => true,
        () => false,
      ),
    });
  } catch (thrown) {
    return {
      armed: false,
      why: `the units are not known: ${toAgentError(thrown).message}`,
      help: `systemctl status ${saveUnit}`,
    };
  }
}

/** Parses what `systemctl show` prints for several units: lines `NAME=VALUE`, with an empty line between units. */
export function parseUnits(text: string): UnitState[] {
  return text
    .split(/\n\n+/)
    .map((block) =>
      Object.fromEntries(
        block
          .split('\n')
          .filter((line) => line.includes('='))
          .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)] as const),
      ),
    )
    .filter((unit) => Object.keys(unit).length > 0);
}

export function continuityOf({ units, recordDevice, hook: hasHook }: ContinuityFacts): ContinuityDocument {
  const early = units.filter(({ Id }) => earlyUnits.includes(Id ?? ''));
  const enabled = early.find(isEnabled);
  const active = early.find(({ ActiveState }) => ActiveState === 'active');
  const failed = early.find(({ ActiveState }) => ActiveState === 'failed');
  const always = units.some((unit) => unit['Id'] === saveUnit && isEnabled(unit));
  const recorded = always || active !== undefined;
  const name = enabled?.['Id'] ?? earlyUnits[recordDevice ? 1 : 0]!;
  const problem = failed && `${failed['Id'] ?? ''} failed in this boot (${failed['Result'] ?? 'unknown'})`;

  if (!recorded && enabled === undefined)
    return {
      armed: false,
      why: 'the units that record a shutdown and use the record are not enabled',
      help: `systemctl enable --now ${name}; ${manual}`,
    };
  if (!recorded)
    return {
      armed: false,
      why: `${problem ?? `${name} is enabled, but was not started in this boot`}, and ${saveUnit} is not enabled: the next shutdown is not recorded`,
      help: `systemctl enable ${saveUnit}`,
    };
  if (enabled === undefined)
    return {
      armed: false,
      why: 'the next shutdown is recorded, but no enabled unit uses the record at the boot after it',
      help: `systemctl enable ${name}`,
    };
  const notes: [why: string, help: string][] = [];
  if (problem !== undefined) notes.push([problem, `journalctl -b -u ${failed?.['Id'] ?? ''}`]);
  if (!always)
    notes.push([
      `only while ${active?.['Id'] ?? ''} is active, since ${saveUnit} is not enabled`,
      `systemctl enable ${saveUnit}`,
    ]);
  if (recordDevice && name !== earlyUnits[1])
    notes.push(['root is not: it needs dattod-early-root.service', manual]);
  else if (recordDevice && !hasHook)
    notes.push(['root is not: the hook is missing', `install -m 755 dattod.shutdown ${hook}`]);
  return {
    armed: true,
    why: ['the next clean shutdown is recorded and used', ...notes.map(([why]) => why)].join('; '),
    help: notes.length === 0 ? null : notes.map(([, help]) => help).join('; '),
  };
}

function isEnabled(unit: UnitState): boolean {
  return ['enabled', 'enabled-runtime'].includes(unit['UnitFileState'] ?? '');
}
