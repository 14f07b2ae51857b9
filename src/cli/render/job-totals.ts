/** The numbers of a job, summed over its devices. */
import type { JobStatus } from '../../api/job-status.ts';

export interface Totals {
  /** Bytes. */
  readonly done: number;
  readonly left: number;
  readonly sent: number;
  /** The number of the current pass, from 1. */
  readonly pass: number;
}

export function totalsOf(status: JobStatus): Totals {
  const sum = (pick: (device: JobStatus['devices'][number]) => number) =>
    status.devices.reduce((total, device) => total + pick(device), 0);
  return {
    done: sum((device) => device.bytes_transferred),
    left: sum((device) => device.bytes_unsynced),
    sent: sum((device) => device.bytes_sent),
    pass: Math.max(1, ...status.devices.map((device) => device.pass)),
  };
}

/** Returns the milliseconds from the start to the end, or to `now` while the job runs. */
export function tookMs(status: JobStatus, now = Date.now()): number {
  const end = status.finished_at === null ? now : Date.parse(status.finished_at);
  return Math.max(0, end - Date.parse(status.created_at));
}
