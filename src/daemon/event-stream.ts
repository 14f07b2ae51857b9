/**
 * Server-sent events (the `text/event-stream` of the HTML standard) for job statuses. A slow reader misses some
 * statuses in between, but never the last one of a job. This bounds the daemon's memory.
 */
import type { ServerResponse } from 'node:http';
import type { JobStatus } from '../api/job-status.ts';

const heartbeatMs = 15_000;

export class EventStream {
  readonly #response: ServerResponse;
  readonly #heartbeat: NodeJS.Timeout;

  constructor(response: ServerResponse, onClose: () => void) {
    this.#response = response;
    response.writeHead(200, {
      'content-type': 'text/event-stream',
      'cache-control': 'no-store',
      connection: 'close',
    });
    response.flushHeaders();
    // A comment at each interval lets either end notice that the other is gone.
    this.#heartbeat = setInterval(() => response.write(': \n\n'), heartbeatMs).unref();
    response.once('close', () => {
      clearInterval(this.#heartbeat);
      onClose();
    });
  }

  send(status: JobStatus): void {
    if (this.#response.writableEnded) return;
    if (this.#response.writableNeedDrain && !isFinal(status)) return;
    this.#response.write(`event: status\ndata: ${JSON.stringify(status)}\n\n`);
  }

  end(): void {
    this.#response.end();
  }
}

/** True if the job has ended, so that its status does not change any more. */
export function isFinal(status: JobStatus): boolean {
  return status.state !== 'NOT_STARTED' && status.state !== 'IN_PROGRESS';
}
