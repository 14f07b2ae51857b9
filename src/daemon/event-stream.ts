/**
 * Server-sent events (the `text/event-stream` of the HTML standard) for job statuses. A reader that does not
 * keep up misses statuses in between, never the last one of a job, so that the daemon's memory stays bounded.
 */
import type { ServerResponse } from 'node:http';
import type { JobStatus } from './documents.ts';

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
    // A comment now and then lets either end notice that the other is gone.
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

/** True where a job will not change any more. */
export function isFinal(status: JobStatus): boolean {
  return status.state !== 'NOT_STARTED' && status.state !== 'IN_PROGRESS';
}
