/** The table of `jobs`. */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { DeviceStatus, JobStatus } from '../../daemon/documents.ts';
import { localTime } from './job.ts';
import { renderTable } from './table.ts';
import { tookMs, totalsOf } from './totals.ts';

export function renderJobs(jobs: readonly JobStatus[]): string {
  const inVault = jobs.some((job) => job.devices.some(isInVault));
  return renderTable(
    [
      { title: 'job' },
      { title: 'kind' },
      { title: 'state' },
      { title: 'started' },
      { title: 'took', align: 'right' },
      { title: 'sent', align: 'right' },
      ...(inVault ? [{ title: 'stored', align: 'right' } as const] : []),
      { title: 'devices' },
      ...(inVault ? [{ title: 'points' }] : []),
      { title: 'remarks' },
    ],
    jobs.map((job) => [
      job.uuid,
      job.kind,
      job.paused ? `${job.state} (paused)` : job.state,
      localTime(job.created_at),
      formatDuration(tookMs(job)),
      formatBytes(totalsOf(job).sent),
      ...(inVault ? [storedText(job)] : []),
      job.devices.map((each) => each.device).join(' '),
      ...(inVault ? [pointsText(job)] : []),
      job.error?.code ?? job.warnings.map(({ code }) => code).join(' '),
    ]),
  );
}

function isInVault({ bytes_stored: stored }: DeviceStatus): boolean {
  return stored !== null;
}

function storedText({ devices }: JobStatus): string {
  const stored = devices.filter(isInVault).reduce((sum, device) => sum + (device.bytes_stored ?? 0), 0);
  return devices.some(isInVault) ? formatBytes(stored) : '-';
}

/** The recovery points of a job, one for each vault. */
function pointsText({ devices }: JobStatus): string {
  return [...new Set(devices.map(({ point }) => point).filter((point) => point !== null))].join(' ') || '-';
}
