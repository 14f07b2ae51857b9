/** The job history for people. */
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import type { JobStatus } from '../../daemon/documents.ts';
import { localTime } from './job.ts';
import { renderTable } from './table.ts';
import { tookMs, totalsOf } from './totals.ts';

export function renderJobs(jobs: readonly JobStatus[]): string {
  return renderTable(
    [
      { title: 'job' },
      { title: 'kind' },
      { title: 'state' },
      { title: 'started' },
      { title: 'took', align: 'right' },
      { title: 'sent', align: 'right' },
      { title: 'devices' },
      { title: 'remarks' },
    ],
    jobs.map((job) => [
      job.uuid,
      job.kind,
      job.paused ? `${job.state} (paused)` : job.state,
      localTime(job.created_at),
      formatDuration(tookMs(job)),
      formatBytes(totalsOf(job).sent),
      job.devices.map((each) => each.device).join(' '),
      job.error?.code ?? job.warnings.map(({ code }) => code).join(' '),
    ]),
  );
}
