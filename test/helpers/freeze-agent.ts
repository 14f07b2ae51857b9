/**
 * A stand-in for the daemon in freeze tests: freezes the mount points of its arguments and waits to be killed.
 *
 *     node freeze-agent.ts RUN_DIRECTORY MAX_FREEZE_MS MOUNT...
 *
 * Prints a line for each event: `ready`, `frozen GUARD_PID`, `expired CODE`, `failed CODE MESSAGE`; `thaw` on
 * standard input thaws and prints `thawed MILLISECONDS` or `failed CODE MESSAGE`.
 */
import { createInterface } from 'node:readline';
import { toAgentError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { createFreezer } from '../../src/freeze/freezer.ts';
import { listRecords, readRecord } from '../../src/freeze/freeze-record.ts';

const [runDirectory = '', maxFreezeMs = '', ...mounts] = process.argv.slice(2);
const say = (line: string): boolean => process.stdout.write(`${line}\n`);
const fail = (thrown: unknown): void => {
  const { code, message } = toAgentError(thrown);
  say(`failed ${code} ${message}`);
};

try {
  const freezer = await createFreezer({
    mounts,
    maxFreezeMs: Number(maxFreezeMs),
    runDirectory,
    log: silentLog(),
  });
  freezer.expiredSignal.addEventListener('abort', () =>
    say(`expired ${toAgentError(freezer.expiredSignal.reason).code}`),
  );
  say('ready');
  try {
    await freezer.freeze();
    const [record] = listRecords(runDirectory);
    say(`frozen ${record === undefined ? 0 : (readRecord(record)?.guard.pid ?? 0)}`);
    for await (const line of createInterface({ input: process.stdin }))
      if (line === 'thaw') await freezer.thaw().then(({ frozenMs }) => void say(`thawed ${frozenMs}`), fail);
  } finally {
    await freezer.close();
  }
} catch (thrown) {
  fail(thrown);
}
