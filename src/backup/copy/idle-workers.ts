/**
 * Copying threads that wait for their next job. A job is ready sooner with them: a new thread needs a quarter of a second of
 * the processor to load its code. And each thread that ends leaves three mappings and some memory of koffi in the process,
 * so a daemon that made new threads for each job would reach the kernel's limit of mappings within months.
 */
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';

/** Threads that wait at most. A thread that waits holds about 10 MiB. */
const mostIdle = 8;

const idle: Worker[] = [];

/** Returns a thread that has no job: one that waits, or a new one. */
export function takeWorker(): Worker {
  const waiting = idle.pop();
  if (waiting !== undefined) {
    forgetListeners(waiting);
    waiting.ref();
    return waiting;
  }
  return new Worker(entryPath(import.meta.url, './copy-worker.ts'), {
    name: 'copy',
    // The buffers lie outside these heaps; small heaps keep the daemon small.
    resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 },
  });
}

/** Takes back a thread whose job has ended in good order. Ends it if enough threads wait already. */
export function giveBackWorker(worker: Worker): void {
  forgetListeners(worker);
  if (idle.length >= mostIdle) {
    void worker.terminate();
    return;
  }
  // A thread that waits keeps no program from ending.
  worker.unref();
  const forget = (): void => {
    const at = idle.indexOf(worker);
    if (at >= 0) idle.splice(at, 1);
  };
  worker.on('exit', forget);
  worker.on('error', forget);
  idle.push(worker);
}

/** Removes the listeners of a job, and none of those that Node itself needs. */
function forgetListeners(worker: Worker): void {
  for (const event of ['message', 'error', 'exit']) worker.removeAllListeners(event);
}
