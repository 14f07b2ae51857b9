/** `verify POINT`: verifies all devices of a point at one level, and stores the result with the point. */
import type { VerifyDocument } from '../../api/vault/output/recovery.ts';
import type { Command } from 'commander';
import { AgentError } from '../../base/errors.ts';
import { reportError } from '../../base/report.ts';
import { agentVersion } from '../../base/version.ts';
import { clearMounts } from '../../restore/mount/mount.ts';
import { type Verification, verifyImage } from '../../restore/verify/verify-image.ts';
import { putCheck } from '../../vault/points/checks.ts';
import { findDevice } from '../../vault/points/find.ts';
import type { PointCheck } from '../../vault/points/checks.ts';
import type { Point, PointDevice } from '../../vault/points/point.ts';
import { findPoint } from '../../vault/points/points.ts';
import type { Context } from '../context.ts';
import { exitWithWarnings } from '../outcome.ts';
import { printable, renderTable } from '../render/table.ts';
import { imageOf } from '../vault/image.ts';
import type { VaultValues } from '../vault/options.ts';
import { bytesUpdate, withProgress } from '../vault/progress.ts';
import { type Session, withVault } from '../vault/session.ts';

export type Level = 'reachable' | 'read' | 'filesystem';

interface Values extends VaultValues {
  readonly level?: Level;
  readonly sample?: number;
  readonly runDir: string;
}

type Looked = readonly { readonly device: PointDevice; readonly found: Verification }[];

/** Verifies `device` alone, or all devices if it is undefined. */
export async function verifyPoint(
  context: Context,
  self: Command,
  name: string,
  device: string | undefined,
): Promise<number> {
  const values = self.opts<Values>();
  const level = values.level ?? 'read';
  if (values.sample !== undefined && level !== 'read')
    throw new AgentError('BAD_USAGE', `--sample needs --level read, not ${level}`);
  const document = await withVault(context, self, async (session) => {
    const { vault, signal } = session;
    const point = await findPoint(vault, name, {}, { signal });
    const devices = device === undefined ? point.devices : [findDevice(point, device)];
    const looked = await look(context, session, { point, devices, level, values });
    return conclude(session, point, level, looked);
  });
  context.print(document, () => renderVerification(document));
  if (!context.json) for (const text of document.warnings) context.io.err(`warning: ${printable(text)}\n`);
  if (document.outcome !== 'damaged') return document.warnings.length > 0 ? exitWithWarnings : 0;
  const damaged = new AgentError('VAULT_DAMAGED', `The recovery point ${document.point} is damaged`, {
    hint:
      'run dattocli vault check to find other damage; run dattocli restore --salvage to restore ' +
      'the rest',
  });
  const report = reportError('dattocli', damaged, { json: context.json });
  context.io.err(`${report.line}\n`);
  return report.exitCode;
}

async function look(
  context: Context,
  session: Session,
  {
    point,
    devices,
    level,
    values,
  }: {
    readonly point: Point;
    readonly devices: readonly PointDevice[];
    readonly level: Level;
    readonly values: Values;
  },
): Promise<Looked> {
  const { signal } = session;
  if (level === 'filesystem') await clearMounts(values.runDir);
  const looked: { device: PointDevice; found: Verification }[] = [];
  for (const device of devices) {
    const found = await withProgress(context, async (show) => {
      const started = performance.now();
      show({ phase: level, fraction: undefined, parts: [device.path] });
      return verifyImage({
        image: imageOf(session, device),
        subject: { point: point.id, device: device.path },
        level,
        ...(values.sample === undefined ? {} : { sample: values.sample }),
        sectorSize: device.sector_size,
        runDirectory: values.runDir,
        signal,
        onProgress: (done, total) => {
          const seconds = Math.max(0.001, (performance.now() - started) / 1000);
          show(bytesUpdate('reading', done, total, done / seconds));
        },
      });
    });
    looked.push({ device, found });
  }
  return looked;
}

async function conclude(
  { vault, signal }: Session,
  point: Point,
  level: Level,
  looked: Looked,
): Promise<VerifyDocument> {
  const coverage = coverageOf(point.devices, looked);
  const outcome = worst(looked.map(({ found }) => found.outcome));
  const at = new Date().toISOString();
  const problems = looked.flatMap(({ device, found }) =>
    found.problems.map((text) => (point.devices.length === 1 ? text : `${device.path}: ${text}`)),
  );
  const warnings = looked
    .filter(({ found }) => found.outcome === 'unfinished')
    .map(({ device }) => `nothing of ${device.path} could be read, so it is not verified at this level`);
  const devices = looked.map(({ device: { path }, found }) => ({
    path,
    coverage: found.coverage,
    outcome: found.outcome,
  }));
  const check = { level, at, coverage, outcome, devices, problems, agent: agentVersion } as const;
  const kept = await putCheck(vault, point.id, check, { signal }).then(
    () => true,
    (error: unknown) => {
      if (!(error instanceof AgentError) || error.code === 'CANCELLED') throw error;
      warnings.push(`the result is not stored with the point: ${error.message}`);
      return false;
    },
  );
  return {
    ...{ point: point.id, level, at, coverage, outcome, kept, warnings },
    devices: looked.map(({ device, found }) => ({
      device: device.path,
      coverage: found.coverage,
      outcome: found.outcome,
      problems: found.problems,
      notes: found.notes,
      lost: found.lost.map(({ offset, length, reason }) => ({ offset, length, reason })),
    })),
  };
}

/** Returns the worst outcome. Damage is worse than an unfinished check. */
function worst(outcomes: readonly PointCheck['outcome'][]): PointCheck['outcome'] {
  return (['damaged', 'unfinished'] as const).find((each) => outcomes.includes(each)) ?? 'whole';
}

/** Weighs devices by their used bytes. A device that was not verified counts as 0. */
export function coverageOf(
  devices: readonly { readonly path: string; readonly used_bytes: number }[],
  looked: readonly {
    readonly device: { readonly path: string };
    readonly found: { readonly coverage: number };
  }[],
): number {
  const share = (path: string): number =>
    looked.find(({ device }) => device.path === path)?.found.coverage ?? 0;
  if (devices.every(({ path }) => share(path) >= 1)) return 1;
  const all = devices.reduce((sum, device) => sum + Math.max(1, device.used_bytes), 0);
  const seen = devices.reduce((sum, device) => sum + Math.max(1, device.used_bytes) * share(device.path), 0);
  return Math.min(1, seen / all);
}

function renderVerification({ level, devices }: VerifyDocument): string {
  const table = renderTable(
    [{ title: 'device' }, { title: 'level' }, { title: 'verified', align: 'right' }, { title: 'outcome' }],
    devices.map(({ device, coverage, outcome }) => [
      device,
      level,
      `${coverage >= 1 ? 100 : Math.floor(coverage * 1000) / 10}%`,
      outcome,
    ]),
  );
  const lines = devices.flatMap(({ device, problems, notes }) => [
    ...problems.slice(0, 20).map((text) => `${device}: ${text}`),
    ...(problems.length > 20 ? [`${device}: and ${problems.length - 20} more (--json lists all)`] : []),
    ...notes.map((text) => `${device}: ${text}`),
  ]);
  return `${table}${lines.map((line) => `${printable(line)}\n`).join('')}`;
}
