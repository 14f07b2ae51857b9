import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { nodeFlags } from '../../src/base/entry.ts';
import { GuardProcess } from '../../src/freeze/guard-process.ts';
import { startExportProcess } from '../../src/restore/mount/export-process.ts';
import { launcher } from '../../scripts/build/launcher.ts';
import { waitFor } from '../helpers/daemon.ts';
import { assertNoDebugger, listeningPorts } from '../helpers/debugger.ts';

test('SIGUSR1 would open the debugger of a process without our flags', async () => {
  const child = spawn(process.execPath, ['-e', 'console.log(1); setInterval(() => {}, 1e9)']);
  await once(child.stdout, 'data');
  assert.throws(() => assertNoDebugger(child.pid!, 'node'), /has a handler/);
  process.kill(child.pid!, 'SIGUSR1');
  // Another process may already use the port of the debugger.
  await waitFor('the debugger', 2000, () => listeningPorts(child.pid!).length > 0).catch(() => undefined);
  child.kill('SIGKILL');
});

test('the launchers, the freeze guard and the process that serves a mount have no debugger', async (t) => {
  for (const flag of nodeFlags) assert.ok(launcher('dattod', false).includes(flag), flag);

  const directory = mkdtempSync(join(tmpdir(), 'no-debugger-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const guard = new GuardProcess(1);
  t.after(() => guard.end());
  await guard.prepare({ mounts: [directory], maxFreezeMs: 1000, runDirectory: directory });
  assertNoDebugger(guard.pid, 'the guard');

  const image = join(directory, 'image');
  const socket = join(directory, 'socket');
  writeFileSync(image, '');
  truncateSync(image, 65536);
  const served = await startExportProcess(
    { image: { kind: 'file', path: image }, name: 'image', listen: { kind: 'unix', path: socket } },
    { logFile: join(directory, 'log'), ownMounts: false },
    () => Promise.resolve(),
  );
  try {
    assertNoDebugger(served.identity.pid, 'the server of a mount');
  } finally {
    process.kill(served.identity.pid, 'SIGTERM');
  }
  await waitFor('the end of the server', 10_000, () => !existsSync(socket));
});
