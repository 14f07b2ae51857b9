import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AgentError, toAgentError } from './errors.ts';
import { fileFailure, unlessAbsent, writing, writingAsync } from './files.ts';

const failure = (code: string) => Object.assign(new Error(`${code}: it failed, write`), { code });

test('only ENOENT means that the file does not exist', async () => {
  assert.equal(await unlessAbsent('/x', Promise.resolve(5)), 5);
  const absent: unknown = await unlessAbsent('/x', Promise.reject<number>(failure('ENOENT')));
  assert.equal(absent, undefined);
  for (const code of ['EIO', 'EMFILE', 'ENFILE', 'EACCES', 'ENOMEM', 'ESTALE', 'ENOTDIR'])
    await assert.rejects(unlessAbsent('/state/x', Promise.reject(failure(code))), {
      code: 'FILE_ERROR',
      message: `/state/x cannot be read: ${code}`,
    });
});

test('a write that fails names the path, the code and the next step', async () => {
  const full = { code: 'FILE_ERROR', message: '/state/x cannot be written: ENOSPC', hint: /^make room/ };
  assert.throws(
    () =>
      writing('/state/x', () => {
        throw failure('ENOSPC');
      }),
    full,
  );
  await assert.rejects(
    writingAsync('/state/x', () => Promise.reject(failure('ENOSPC'))),
    full,
  );
  assert.equal(
    writing('/x', () => 7),
    7,
  );
});

test('an error that is not a system error is returned unchanged', () => {
  const own = new AgentError('CANCELLED', 'Cancelled');
  const defect = new TypeError('a defect');
  for (const thrown of [own, defect, failure('ERR_INVALID_ARG_TYPE')])
    assert.equal(fileFailure('/x', 'read', thrown), thrown);
});

test('an error because the machine lacks something is never reported as a defect', () => {
  for (const code of ['ENOSPC', 'EDQUOT', 'EROFS', 'EMFILE', 'ENFILE']) {
    const error = toAgentError(failure(code));
    assert.equal(error.code, 'FILE_ERROR', code);
    assert.ok(error.hint !== undefined);
  }
  for (const code of ['EIO', 'EINVAL']) assert.equal(toAgentError(failure(code)).code, 'INTERNAL', code);
});
