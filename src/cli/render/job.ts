/** The text form of one job: its state, a table of its devices, its warnings. */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { DeviceStatus, JobStatus } from '../../api/job-status.ts';
import { localTime } from './local-time.ts';
import { printable, renderList, renderTable } from './table.ts';
import { tookMs, totalsOf } from './job-totals.ts';

/** The output of `backupstatus`. */
export function renderJob(status: JobStatus): string {
  const { done, left, pass } = totalsOf(status);
  const entries: [string, string][] = [
    ['job', status.uuid],
    ['state', stateText(status)],
    ['kind', status.kind],
    ['started', localTime(status.created_at)],
    ['took', formatDuration(tookMs(status))],
  ];
  if (status.finished_at === null) {
    entries.push(
      ['done', `${formatBytes(done)} of ${formatBytes(done + left)}, pass ${pass}`],
      ['rate', `${formatBytes(Math.round(status.rate))}/s`],
    );
    if (status.seconds_left !== null) entries.push(['time left', formatDuration(status.seconds_left * 1000)]);
  }
  if (status.error !== null)
    entries.push(['error', `${status.error.code}: ${status.error.message}${hintOf(status.error.hint)}`]);
  const table = status.kind === 'verify' ? renderVerified(status) : renderDevices(status);
  return `${renderList(entries)}\n${table}${renderWarnings(status)}`;
}

/** The table at the end of `startbackup --wait`. */
export function renderDevices(status: JobStatus): string {
  const took = tookMs(status);
  // A vault stores fewer bytes than were sent: it deduplicates and compresses them.
  const inVault = status.devices.some(({ bytes_stored: stored }) => stored !== null);
  return renderTable(
    [
      { title: 'device' },
      { title: 'kind' },
      { title: 'used', align: 'right' },
      { title: 'sent', align: 'right' },
      ...(inVault ? [{ title: 'stored', align: 'right' } as const] : []),
      { title: 'zeros', align: 'right' },
      { title: 'time', align: 'right' },
      { title: 'rate', align: 'right' },
      { title: 'frozen for', align: 'right' },
      { title: 'verified', align: 'right' },
      { title: 'target' },
      ...(inVault ? [{ title: 'point' }] : []),
    ],
    status.devices.map((device) => [
      device.device,
      device.kind,
      formatBytes(device.used_bytes),
      formatBytes(device.bytes_sent),
      ...(inVault ? [device.bytes_stored === null ? '-' : formatBytes(device.bytes_stored)] : []),
      formatBytes(device.bytes_zero),
      formatDuration(took),
      took === 0 ? '-' : `${formatBytes(Math.round((device.bytes_transferred / took) * 1000))}/s`,
      frozenText(device),
      device.bytes_verified === 0 ? 'no' : formatBytes(device.bytes_verified),
      device.target,
      ...(inVault ? [device.point ?? '-'] : []),
    ]),
  );
}

/** The table at the end of `verify`. */
export function renderVerified(status: JobStatus): string {
  return renderTable(
    [
      { title: 'device' },
      { title: 'compared', align: 'right' },
      { title: 'differs', align: 'right' },
      { title: 'not known', align: 'right' },
      { title: 'target' },
    ],
    status.devices.map((device) => [
      device.device,
      formatBytes(device.bytes_verified),
      device.bytes_mismatched === 0 ? 'nothing' : formatBytes(device.bytes_mismatched),
      formatBytes(device.bytes_unknown),
      device.target,
    ]),
  );
}

/** One line for each warning with its code, then one for each unreadable range. */
export function renderWarnings(status: JobStatus): string {
  const warnings = status.warnings.map(({ code, message }) => `warning ${code}: ${printable(message)}\n`);
  const places = status.devices.flatMap((device) =>
    device.read_errors.map(
      ({ offset, length }) => `unreadable: ${device.device} from byte ${offset}, ${length} bytes\n`,
    ),
  );
  return [...warnings, ...places].join('');
}

function stateText(status: JobStatus): string {
  if (status.state !== 'IN_PROGRESS') return status.state;
  return `${status.state} (${status.paused ? 'paused, ' : ''}${status.phase})`;
}

function frozenText({ freeze_ms: ms }: DeviceStatus): string {
  if (ms === null) return '-';
  return ms === 0 ? 'not frozen' : `${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

function hintOf(hint: string | undefined): string {
  return hint === undefined ? '' : ` (${hint})`;
}
