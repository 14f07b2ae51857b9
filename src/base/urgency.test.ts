import assert from 'node:assert/strict';
import os from 'node:os';
import { test } from 'node:test';
import { urgently } from './urgency.ts';

test('work is urgent where that is allowed, and not afterwards, also when it failed', async () => {
  const before = os.getPriority(0);
  const during = await urgently(() => Promise.resolve(os.getPriority(0)));
  assert.ok(during === -15 || during === before, String(during));
  assert.equal(os.getPriority(0), before);
  await assert.rejects(urgently(() => Promise.reject(new Error('failed'))));
  assert.equal(os.getPriority(0), before);
});
