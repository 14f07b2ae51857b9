import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findProgram, outputOf, runProgram } from './program.ts';

const shell = findProgram('sh')!;

test('programs are found only in the directories of the system', () => {
  assert.match(shell, /^\/(usr\/)?bin\/sh$/);
  assert.equal(findProgram('no-such-program'), undefined);
  assert.equal(findProgram('../../bin/no-such-program'), undefined);
});

test('a program returns output and exit code, in the C locale and without our environment', async (t) => {
  process.env['OF_THIS_PROCESS'] = 'secret';
  t.after(() => delete process.env['OF_THIS_PROCESS']);
  const script = 'echo "$LC_ALL $PATH $OF_THIS_PROCESS"; cat; pwd; echo trouble >&2; exit 3';
  assert.deepEqual(await runProgram(shell, ['-c', script]), {
    ...{ code: 3, signal: null, late: false, cut: false },
    stdout: 'C /usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \n/\n',
    stderr: 'trouble\n',
  });
});

test('a program has its own session, or shares ours', async () => {
  const sessionOf = async (sharesSession: boolean): Promise<{ pid: string; session: string }> => {
    const script = 'read -r line </proc/$$/stat; echo "$line"';
    const { stdout } = await runProgram(shell, ['-c', script], { sharesSession });
    const fields = stdout.slice(stdout.lastIndexOf(')') + 2).split(' ');
    return { pid: stdout.split(' ')[0]!, session: fields[3]! };
  };
  const own = await sessionOf(false);
  assert.equal(own.session, own.pid);
  const shared = await sessionOf(true);
  assert.notEqual(shared.session, shared.pid);
});

test('a program with a time limit is killed after it, and a missing program rejects', async () => {
  const { code, signal, late } = await runProgram(findProgram('sleep')!, ['60'], { killAfterMs: 50 });
  assert.deepEqual([code, signal, late], [null, 'SIGKILL', true]);
  await assert.rejects(runProgram('/no/such/program', []), { code: 'ENOENT' });
});

test('a program that prints too much runs to its end, and the excess output is dropped', async () => {
  const script = 'printf 0123456789; printf 0123456789; exit 4';
  const result = await runProgram(shell, ['-c', script], { mostOutput: 12 });
  assert.deepEqual([result.code, result.stdout, result.cut], [4, '012345678901', true]);
  assert.equal((await runProgram(shell, ['-c', script], { mostOutput: 20 })).cut, false);
});

test('a signal asks the program to end, and rejects with its reason once it has', async () => {
  const controller = new AbortController();
  const running = runProgram(findProgram('sleep')!, ['600'], { signal: controller.signal });
  const reason = new Error('stopped by the test');
  controller.abort(reason);
  await assert.rejects(running, reason);
  await assert.rejects(runProgram(shell, ['-c', ':'], { signal: controller.signal }), reason);
});

test('the output of a program is returned, and a missing program is not an error', async () => {
  assert.equal(await outputOf('sh', ['-c', 'echo "$LC_ALL"; echo noise >&2; cat']), 'C\n');
  assert.equal(await outputOf('no-such-program', []), undefined);
});

test('outputOf throws if the program fails, prints too much or takes too long', async () => {
  await assert.rejects(
    outputOf('sh', ['-c', 'echo first >&2; echo last >&2; exit 3']),
    /^Error: sh exited with 3: last$/,
  );
  await assert.rejects(
    outputOf('head', ['-c', '1000', '/dev/zero'], { mostOutput: 100 }),
    /head printed too much/,
  );
  await assert.rejects(outputOf('sleep', ['600'], { killAfterMs: 50 }), /sleep was not done after 50 ms/);
  await assert.rejects(outputOf('sh', ['-c', 'kill -TERM $$']), /sh was ended by SIGTERM/);
});
