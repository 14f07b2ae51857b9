/** The entry of a restore thread: opens the image and the destination, and runs the jobs of the pool. */
import { parentPort, workerData } from 'node:worker_threads';
import { answerCalls, type CallHandlers } from '../../base/thread-calls.ts';
import { openImage } from '../image/open-image.ts';
import { type Destination, openDestination } from './destination.ts';
import type { RestoreProtocol, ThreadSetup } from './thread-messages.ts';
import { RestoreThread } from './thread.ts';

const port = parentPort;
if (port === null) throw new Error('restore-worker.ts is started as a thread');

const setup = workerData as ThreadSetup;
const flag = new Int32Array(setup.stop);
const stopped = (): boolean => Atomics.load(flag, 0) !== 0;
const aborted = new AbortController();
const opened = new AsyncDisposableStack();

let opening: Promise<RestoreThread> | undefined;
let destination: Destination | undefined;

async function open(): Promise<RestoreThread> {
  const image = await openImage(setup.image, { cacheBytes: setup.cacheBytes, signal: aborted.signal });
  opened.defer(() => image.close().catch(() => undefined));
  if (setup.destination !== undefined) {
    const to = await openDestination(setup.destination);
    opened.defer(() => to.close().catch(() => undefined));
    destination = to;
  }
  return new RestoreThread(image, destination, stopped);
}

const calls: CallHandlers<RestoreProtocol> = {
  open: async () => {
    await (opening = open());
    return undefined;
  },
  run: async (job) => {
    if (opening === undefined) throw new Error('the restore thread is not open');
    return (await opening).run(job);
  },
};

answerCalls<RestoreProtocol>(port, {
  answer: (name, args) => calls[name](args),
  notices: {
    abort: () => {
      aborted.abort();
      destination?.destroy();
    },
    end: () => {
      void (async () => {
        await opening?.catch(() => undefined);
        await opened.disposeAsync();
        port.close();
      })();
    },
  },
});
