/**
 * Entry of a copying thread. It serves one job after the other, each with a session of its own: calls from the coordinator
 * one after the other (messages.ts). `abort` alone overtakes: it breaks the connection, so that whatever waits for it ends.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parentPort } from 'node:worker_threads';
import { toAgentError } from '../../base/errors.ts';
import type { ThreadReply, ThreadRequest } from './messages.ts';
import { CopySession } from './session.ts';

const port = parentPort;
if (port === null) throw new Error('copy-worker is started as a thread by the copy pool');

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

let session: CopySession | undefined;
let queue: Promise<void> = Promise.resolve();

port.on('message', (request: ThreadRequest) => {
  if (request.call === 'begin') session = new CopySession(request.setup);
  else if (request.call === 'abort') session?.abort();
  else
    queue = queue.then(async () => {
      const reply = await answer(request);
      if (request.call === 'close') {
        session = undefined;
        // The thread may rest for hours, and would keep the buffers and bitmaps of the job for as long.
        collectGarbage();
      }
      port.postMessage(reply);
    });
});

async function answer({ id, call, args }: Extract<ThreadRequest, { args: unknown }>): Promise<ThreadReply> {
  try {
    if (session === undefined) throw new Error(`the copying thread has no job for ${call}`);
    return { id, result: await session.answer(call, args) };
  } catch (error) {
    return { id, error: toAgentError(error).toDocument() };
  }
}
