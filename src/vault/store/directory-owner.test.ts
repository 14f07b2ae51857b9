import assert from 'node:assert/strict';
import { test } from 'node:test';
import { give } from './directory-owner.ts';

test('an owner that cannot be given stops no write; other errors do', async () => {
  const owner = { uid: 1000, gid: 1001 };
  const given: number[][] = [];
  await give({ chown: (...ids) => Promise.resolve(void given.push(ids)) }, owner);
  assert.deepEqual(given, [[1000, 1001]]);
  const failing = (code: string) => ({
    chown: () => Promise.reject(Object.assign(new Error(code), { code })),
  });
  for (const code of ['EPERM', 'EINVAL', 'ENOSYS', 'ENOTSUP', 'EOPNOTSUPP']) await give(failing(code), owner);
  for (const code of ['EIO', 'EROFS', 'EDQUOT']) await assert.rejects(give(failing(code), owner), { code });
});
