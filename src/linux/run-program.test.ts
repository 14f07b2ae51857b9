import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runProgram } from './run-program.ts';

test('what a program prints comes back, in no language', async () => {
  assert.equal(await runProgram('sh', ['-c', 'echo "$LC_ALL"; echo noise >&2; cat']), 'C\n');
});

test('a program that the system lacks is no failure', async () => {
  assert.equal(await runProgram('no-such-program', []), undefined);
});

test('a program that fails, prints too much or takes too long says so', async () => {
  await assert.rejects(
    runProgram('sh', ['-c', 'echo first >&2; echo last >&2; exit 3']),
    /sh exited with 3: last$/,
  );
  await assert.rejects(
    runProgram('head', ['-c', '1000', '/dev/zero'], { most: 100 }),
    /head printed too much/,
  );
  await assert.rejects(runProgram('sleep', ['600'], { timeoutMs: 50 }), /sleep was not done after 50 ms/);
  const controller = new AbortController();
  const running = runProgram('sleep', ['600'], { signal: controller.signal });
  controller.abort();
  await assert.rejects(running, /sleep/);
});
