/** Follows a job to its end through the daemon's events, across a restart of the daemon. */
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError } from '../base/errors.ts';
import type { JobStatus } from '../api/job-status.ts';
import type { Client } from './client.ts';

/** How long to wait for a daemon that stopped to return, milliseconds. */
const returnMs = 10_000;

export interface FollowOptions {
  readonly onStatus: (status: JobStatus) => void;
  readonly signal?: AbortSignal;
}

/** Resolves with the final status. Throws DAEMON_UNREACHABLE if the daemon does not return. */
export async function followJob(client: Client, uuid: string, options: FollowOptions): Promise<JobStatus> {
  let lostAt: number | undefined;
  for (;;) {
    try {
      for await (const status of client.events(`/v1/jobs/${uuid}/events`, options.signal)) {
        lostAt = undefined;
        options.onStatus(status);
        if (status.state !== 'NOT_STARTED' && status.state !== 'IN_PROGRESS') return status;
      }
    } catch (error) {
      if (!(error instanceof AgentError) || error.code !== 'DAEMON_UNREACHABLE') throw error;
    }
    lostAt ??= performance.now();
    if (performance.now() - lostAt > returnMs)
      throw new AgentError('DAEMON_UNREACHABLE', `dattod stopped while job ${uuid} was running`, {
        hint: `start dattod; 'dattocli backupstatus ${uuid}' then shows how the job ended`,
      });
    await sleep(200, undefined, options.signal === undefined ? {} : { signal: options.signal });
  }
}
