/**
 * Copying threads that wait for their next job. They make a job start sooner: a new thread needs 0.25 s of processor
 * time to load its code. They also limit a leak. Each thread that ends leaves three mappings and some memory of koffi
 * in the process. A daemon that made new threads for each job would reach the kernel's limit of mappings within months.
 */
import { Worker } from 'node:worker_threads';
import { entryPath } from '../../base/entry.ts';

/** Threads that wait, at most. Each holds about 10 MiB. */
const mostIdle = 8;

const idle: Worker[] = [];

/** Returns a thread that has no job: a waiting one, or a new one. */
export function takeWorker(): Worker {
  const waiting = idle.pop();
  if (waiting !== undefined) {
    forgetListeners(waiting);
    waiting.ref();
    return waiting;
  }
  return new Worker(entryPath(import.meta.url, './copy-worker.ts'), {
    name: 'copy',
    // The buffers lie outside the heaps, so small heaps are enough, and keep the daemon small.
    resourceLimits: { maxYoungGenerationSizeMb: 2, maxOldGenerationSizeMb: 64 },
  });
}

/** Takes back a thread whose job has ended without an error. Ends it if enough threads wait already. */
export function giveBackWorker(worker: Worker): void {
  forgetListeners(worker);
  if (idle.length >= mostIdle) {
    void worker.terminate();
    return;
  }
  // A waiting thread does not keep the program running.
  worker.unref();
  const forget = (): void => {
    const at = idle.indexOf(worker);
    if (at >= 0) idle.splice(at, 1);
  };
  worker.on('exit', forget);
  worker.on('error', forget);
  idle.push(worker);
}

/** Removes the listeners of a job, and none that Node itself needs. */
function forgetListeners(worker: Worker): void {
  for (const event of ['message', 'error', 'exit']) worker.removeAllListeners(event);
}
