import assert from 'node:assert/strict';
import os from 'node:os';
import { test } from 'node:test';
import { withRaisedPriority } from './thread-priority.ts';

test('the priority is raised if that is allowed, and returns afterwards, also if the work failed', async () => {
  const before = os.getPriority(0);
  const during = await withRaisedPriority(() => Promise.resolve(os.getPriority(0)));
  assert.equal(during, mayRaisePriority() ? -15 : before);
  assert.equal(os.getPriority(0), before);
  await assert.rejects(withRaisedPriority(() => Promise.reject(new Error('failed'))));
  assert.equal(os.getPriority(0), before);
});

/** True if this process may raise its own priority: root, or CAP_SYS_NICE, or a limit (RLIMIT_NICE). */
function mayRaisePriority(): boolean {
  const before = os.getPriority(0);
  try {
    os.setPriority(0, -15);
    os.setPriority(0, before);
    return true;
  } catch {
    return false;
  }
}
