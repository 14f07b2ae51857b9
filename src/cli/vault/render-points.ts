/** Renders recovery points for people. */
import { formatBytes } from '../../base/bytes.ts';
import { localTime } from '../render/job.ts';
import { printable, renderList, renderTable } from '../render/table.ts';
import type {
  CheckDocument,
  OnePointDocument,
  PointDeviceDocument,
  PointDocument,
  PointsDocument,
} from './documents.ts';

const shortest = 8;

/** Returns the number of digits that distinguish all the IDs. */
export function digitsNeeded(ids: readonly string[]): number {
  for (let digits = shortest; ; digits += 4)
    if (digits >= 32 || new Set(ids.map((id) => id.slice(0, digits))).size === new Set(ids).size)
      return digits;
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
function checksOf({ checks, damage }: PointDocument): CheckDocument[] {
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
