/** `points [POINT]`: lists the recovery points of a vault, or shows one. */
import { Command } from 'commander';
import { formatBytes } from '../../base/bytes.ts';
import { exitWithWarnings } from '../outcome.ts';
import type { Context, Run } from '../context.ts';
import { localTime } from '../render/local-time.ts';
import { printable, renderList, renderTable } from '../render/table.ts';
import type {
  CheckDocument,
  OnePointDocument,
  PointDeviceDocument,
  PointDocument,
  PointsDocument,
} from '../../api/vault/output/points.ts';
import { type VaultValues, addVaultOptions, pointArgument } from '../vault/options.ts';
import { digitsNeeded } from '../vault/point-digits.ts';
import { withVault } from '../vault/session.ts';

interface Values extends VaultValues {
  readonly device?: string;
  readonly machine?: string;
}

export function points(run: Run): Command {
  const command = new Command('points')
    .description(
      'Lists the recovery points of a vault, earliest first. With POINT: shows the details of that ' +
        'point.',
    )
    .argument('[point]', pointArgument[1])
    .option('--device <name>', 'only points with this device: path, UUID or label')
    .option('--machine <name>', 'only points of this machine: host name or machine ID');
  return addVaultOptions(command).action(run(showPoints));
}

async function showPoints(context: Context, self: Command): Promise<number> {
  const { findPoint, listPoints, filterPoints, pointDocument, readFacts } =
    await import('../vault/library.ts');
  const [name] = self.args;
  const { device, machine } = self.opts<Values>();
  if (name !== undefined) {
    const document = await withVault(context, self, async ({ vault, signal }) => {
      const point = await findPoint(vault, name, { device, machine }, { signal });
      const modified = (await vault.store.head(`points/${point.id}`, { signal }))?.modified ?? 0;
      const facts = {
        ...(await readFacts(vault, signal, point.id)),
        stored: new Map([[point.id, modified]]),
      };
      return { ...pointDocument(point, facts), layout: point.machine.layout } satisfies OnePointDocument;
    });
    context.print(document, () => renderPoint(document));
    return 0;
  }
  const document = await withVault(context, self, async ({ vault, signal }) => {
    const { points, damaged, stored } = await listPoints(vault, { signal });
    const facts = { ...(await readFacts(vault, signal)), stored };
    return {
      vault: { id: vault.id, name: vault.name },
      points: filterPoints(points, { device, machine }).map((point) => pointDocument(point, facts)),
      damaged: damaged.map(({ key, error }) => ({ key, code: error.code, message: error.message })),
    } satisfies PointsDocument;
  });
  context.print(document, () => renderPoints(document));
  return document.damaged.length > 0 ? exitWithWarnings : 0;
}

export function renderPoints({ points, damaged }: PointsDocument): string {
  const digits = digitsNeeded(points.map(({ id }) => id));
  const table =
    points.length === 0 ? 'no recovery points\n' : renderTable(columns, points.flatMap(rowsOf(digits)));
  const doubts = points
    .filter(({ time_doubt: doubt }) => doubt !== null)
    .map(({ id, time_doubt: doubt }) => `${id.slice(0, digits)}: ${doubt ?? ''}\n`);
  return `${table}${doubts.join('')}${damaged.map(({ key, message }) => `damaged: ${key}: ${printable(message)}\n`).join('')}`;
}

const columns = [
  { title: 'point' },
  { title: 'finished' },
  { title: 'machine' },
  { title: 'device' },
  { title: 'filesystem' },
  { title: 'size', align: 'right' },
  { title: 'used', align: 'right' },
  { title: 'added', align: 'right' },
  { title: 'kind' },
  { title: 'image' },
  { title: 'checked' },
] as const;

/** Returns one row per device. Only the first row has the columns of the point. */
function rowsOf(digits: number): (point: PointDocument) => string[][] {
  return (point) =>
    point.devices.map((device, at) => [
      ...(at === 0
        ? [`${point.id.slice(0, digits)}${point.protected ? ' (protected)' : ''}`, localTime(point.finished)]
        : ['', '']),
      at === 0 ? point.machine.name : '',
      device.path,
      filesystemText(device),
      formatBytes(device.size),
      formatBytes(device.used_bytes),
      formatBytes(device.stored_bytes),
      device.kind,
      device.consistency,
      at === 0 ? checkText(point.damage ?? point.checks[0]) : '',
    ]);
}

function filesystemText({ filesystem }: PointDeviceDocument): string {
  if (filesystem === null) return '-';
  return filesystem.label === '' ? filesystem.type : `${filesystem.type} ${filesystem.label}`;
}

function checkText(check: CheckDocument | undefined): string {
  if (check === undefined) return 'no';
  const share = check.coverage < 1 ? ` ${Math.floor(check.coverage * 100)}%` : '';
  return `${check.outcome}: ${check.level}${share}`;
}

export function renderPoint(point: OnePointDocument): string {
  const entries: [string, string][] = [
    ['point', point.id],
    ['finished', localTime(point.finished)],
    ...(point.time_doubt === null ? [] : [['', point.time_doubt] as [string, string]]),
    ['job', point.job],
    ['kind', point.kind],
    ['machine', `${point.machine.name} (${point.machine.id || 'no id'}, ${point.machine.boot})`],
    ['agent', point.agent],
    ['protected', point.protected ? 'yes' : 'no'],
    ...checksOf(point).map((check): [string, string] => [
      'checked',
      `${localTime(check.at)} ${checkText(check)}${check.problems.length === 0 ? '' : `: ${check.problems.join('; ')}`}`,
    ]),
    ...point.warnings.map(({ code, message }): [string, string] => ['warning', `${code}: ${message}`]),
    ...point.devices.flatMap(deviceEntries),
    [
      'layout',
      Object.keys(point.layout).length === 0
        ? 'none'
        : `${Object.keys(point.layout).join(', ')} (--json shows it)`,
    ],
  ];
  return renderList(entries);
}

/** The last check of each level, and the check whose damage is not cleared. */
function checksOf({ checks, damage }: PointDocument): readonly CheckDocument[] {
  const isShown =
    damage === null || checks.some(({ at, level }) => at === damage.at && level === damage.level);
  return isShown ? checks : [...checks, damage];
}

function deviceEntries(device: PointDeviceDocument): [string, string][] {
  const { filesystem, partition } = device;
  const uuid = filesystem === null || filesystem.uuid === '' ? '' : ` ${filesystem.uuid}`;
  const entries: [string, string][] = [
    ['device', device.path],
    ['  filesystem', `${filesystemText(device)}${uuid}`],
    ['  size', `${formatBytes(device.size)} (${device.size} bytes), sectors of ${device.sector_size}`],
    ['  used', formatBytes(device.used_bytes)],
    ['  added', `${formatBytes(device.stored_bytes)} to the vault`],
    ['  image', `${device.kind}, ${device.consistency}, tracked by ${device.tracker}`],
    [
      '  frozen for',
      `${device.freeze_ms < 10 ? device.freeze_ms.toFixed(1) : Math.round(device.freeze_ms)} ms`,
    ],
  ];
  if (partition !== null) entries.push(['  partition', `${partition.number} of ${partition.disk}`]);
  for (const { offset, length } of device.read_errors)
    entries.push(['  unreadable', `from byte ${offset}, ${length} bytes`]);
  return entries;
}
