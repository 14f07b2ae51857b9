/** The entry of a restore thread: opens the image and the destination, and runs the jobs of the pool. */
import { parentPort, workerData } from 'node:worker_threads';
import { toAgentError } from '../../base/errors.ts';
import { openImage } from '../image/open-image.ts';
import { openDestination } from './destination.ts';
import type { ThreadReply, ThreadRequest, ThreadSetup } from './messages.ts';
import { RestoreThread } from './thread.ts';

const port = parentPort;
if (port === null) throw new Error('restore-worker.ts is started as a thread');

const setup = workerData as ThreadSetup;
const flag = new Int32Array(setup.stop);
const stopped = (): boolean => Atomics.load(flag, 0) !== 0;
const ended = new AbortController();

try {
  const image = await openImage(setup.image, { cacheBytes: setup.cacheBytes, signal: ended.signal });
  const destination = setup.destination === undefined ? undefined : await openDestination(setup.destination);
  const thread = new RestoreThread(image, destination, stopped);
  port.on('message', (request: ThreadRequest | 'end' | 'abort') => {
    if (request === 'abort') {
      ended.abort();
      destination?.destroy();
    } else if (request === 'end') {
      void (async () => {
        await destination?.close().catch(() => undefined);
        await image.close().catch(() => undefined);
        port.close();
      })();
    } else void answer(thread, request);
  });
  tell({ ready: true });
} catch (error) {
  tell({ id: 0, error: toAgentError(error).toDocument() });
  port.close();
}

async function answer(thread: RestoreThread, { id, job }: ThreadRequest): Promise<void> {
  try {
    tell({ id, result: await thread.run(job) });
  } catch (error) {
    tell({ id, error: toAgentError(error).toDocument() });
  }
}

function tell(reply: ThreadReply): void {
  port?.postMessage(reply);
}
