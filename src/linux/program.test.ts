import assert from 'node:assert/strict';
import { test } from 'node:test';
import { findProgram, runProgram } from './program.ts';

test('programs are found in the directories of the system alone', () => {
  assert.match(findProgram('sh') ?? '', /^\/(usr\/)?bin\/sh$/);
  assert.equal(findProgram('no-such-program'), undefined);
  assert.equal(findProgram('../../bin/no-such-program'), undefined);
});

test('a program tells its output and exit code, in the C locale, in a session of its own', async () => {
  const shell = findProgram('sh')!;
  const script = 'echo "$LC_ALL $PATH"; echo trouble >&2; exit 3';
  assert.deepEqual(await runProgram(shell, ['-c', script]), {
    code: 3,
    stdout: 'C /usr/sbin:/sbin:/usr/bin:/bin\n',
    stderr: 'trouble\n',
  });
  const session = await runProgram(shell, ['-c', 'read -r line </proc/$$/stat; echo "$line"']);
  const fields = session.stdout.slice(session.stdout.lastIndexOf(')') + 2).split(' ');
  assert.equal(session.stdout.split(' ')[0], fields[3]);
});

test('what only looks is killed when it takes too long; what is not there rejects', async () => {
  const result = await runProgram(findProgram('sleep')!, ['60'], { killAfterMs: 50 });
  assert.equal(result.code, null);
  await assert.rejects(runProgram('/no/such/program', []), { code: 'ENOENT' });
});
