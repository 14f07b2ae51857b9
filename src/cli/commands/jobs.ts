/** `jobs`: lists the jobs, the newest first. */
import { Command } from 'commander';
import { AgentError } from '../../base/errors.ts';
import type { JobStatus } from '../../daemon/documents.ts';
import type { Run } from '../context.ts';
import { renderJobs } from '../render/jobs.ts';

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
