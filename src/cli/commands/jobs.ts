/** `jobs`: lists the jobs, the newest first. */
import { Command } from 'commander';
import { formatBytes } from '../../base/bytes.ts';
import { formatDuration } from '../../base/duration.ts';
import { AgentError } from '../../base/errors.ts';
import type { DeviceStatus, JobStatus } from '../../api/job-status.ts';
import type { Run } from '../context.ts';
import { localTime } from '../render/local-time.ts';
import { renderTable } from '../render/table.ts';
import { tookMs, totalsOf } from '../render/job-totals.ts';

interface Options {
  limit?: number;
}

export function jobs(run: Run): Command {
  return new Command('jobs')
    .description('Lists running and ended jobs, the newest first.')
    .option('--limit <number>', 'show at most this many', parseLimit)
    .action(
      run(async ({ client, print }, self) => {
        const { limit } = self.opts<Options>();
        const query = limit === undefined ? '' : `?limit=${limit}`;
        const found = await client.get<JobStatus[]>(`/v1/jobs${query}`);
        print(found, () => (found.length === 0 ? 'no jobs yet\n' : renderJobs(found)));
        return 0;
      }),
    );
}

function parseLimit(text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text))
    throw new AgentError('BAD_USAGE', `--limit "${text}" must be a whole number from 1 to 999999`);
  return Number(text);
}

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
