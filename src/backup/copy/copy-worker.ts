/**
 * Entry of a copying thread. It serves one job after another, each with its own session. Calls run one after another.
 * `abort` overtakes them: it breaks the connection, so that a call that waits for it ends.
 */
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { parentPort } from 'node:worker_threads';
import pLimit from 'p-limit';
import { answerCalls } from '../../base/thread-calls.ts';
import type { CopyProtocol } from './messages.ts';
import { CopySession } from './session.ts';

const port = parentPort;
if (port === null) throw new Error('copy-worker is started as a thread by the copy pool');

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

const inTurn = pLimit(1);
let session: CopySession | undefined;

answerCalls<CopyProtocol>(port, {
  answer: (name, args) =>
    inTurn(async () => {
      try {
        if (session === undefined) throw new Error(`the copying thread has no job for ${name}`);
        return await session.calls[name](args);
      } finally {
        if (name === 'close') {
          session = undefined;
          // The thread may be idle for hours, and would keep the buffers and bitmaps of the job for that time.
          collectGarbage();
        }
      }
    }),
  notices: {
    begin: (setup) => {
      session = new CopySession(setup);
    },
    abort: () => session?.abort(),
  },
});
