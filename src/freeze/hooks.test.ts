import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkHook, runHook } from './hooks.ts';

const directory = mkdtempSync(join(tmpdir(), 'hooks-'));
after(() => rmSync(directory, { recursive: true }));
let number = 0;

function hook(script: string): string {
  const path = join(directory, `hook${number++}`);
  writeFileSync(path, `#!/bin/sh\n${script}\n`, { mode: 0o755 });
  return path;
}

test('a hook gets its environment, and its children may continue to run', async () => {
  const out = join(directory, 'out');
  await runHook(
    hook('echo "$WHAT $PWD" > "$OUT"\nsleep 60 &\necho $! >> "$OUT"'),
    { WHAT: 'freeze', OUT: out },
    {
      timeoutMs: 10_000,
    },
  );
  const [line, child] = readFileSync(out, 'utf8').split('\n');
  assert.equal(line, 'freeze /');
  process.kill(Number(child), 'SIGKILL');
});

test('a hook gets nothing of the environment of the daemon', async () => {
  const out = join(directory, 'environment');
  process.env['AWS_SECRET_ACCESS_KEY'] = 'a secret';
  try {
    await runHook(hook(`env > ${out}`), { DATTO_DEVICES: '/dev/sda1 /dev/sdb' }, { timeoutMs: 10_000 });
  } finally {
    delete process.env['AWS_SECRET_ACCESS_KEY'];
  }
  // The shell itself sets the other variables.
  const lines = readFileSync(out, 'utf8')
    .split('\n')
    .filter((line) => !/^(PWD|OLDPWD|SHLVL|_)=|^$/.test(line));
  assert.deepEqual(lines.sort(), [
    'DATTO_DEVICES=/dev/sda1 /dev/sdb',
    'LANG=C.UTF-8',
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
  ]);
});

test('a hook is not run if other users may change it or its folder', async () => {
  const ran = join(directory, 'ran');
  const path = hook(`touch ${ran}`);
  chmodSync(path, 0o775);
  await assert.rejects(runHook(path, {}, { timeoutMs: 10_000 }), {
    code: 'UNSAFE_FILE',
    hint: `Run: chmod go-w '${path}'`,
  });
  chmodSync(path, 0o755);
  chmodSync(directory, 0o777);
  await assert.rejects(checkHook(path), { code: 'UNSAFE_FILE', hint: `Run: chmod go-w '${directory}'` });
  chmodSync(directory, 0o700);
  await checkHook(path);
  assert.equal(existsSync(ran), false);
});

test('the error of a failing hook has its exit status and its last line', async () => {
  const path = hook('echo first >&2\necho "the database says no" >&2\nexit 3');
  await assert.rejects(runHook(path, {}, { timeoutMs: 10_000 }), {
    code: 'HOOK_FAILED',
    message: `The hook ${path} exited with 3: the database says no`,
  });
  await assert.rejects(runHook(hook('kill -TERM $$'), {}, { timeoutMs: 10_000 }), {
    code: 'HOOK_FAILED',
    message: /was killed by SIGTERM/,
  });
  await assert.rejects(runHook(join(directory, 'none'), {}, { timeoutMs: 10_000 }), {
    code: 'HOOK_FAILED',
    message: /could not be started/,
  });
});

test('a slow hook is killed with its children', async () => {
  const pidFile = join(directory, 'pid');
  const path = hook(`sleep 60 &\necho $! > ${pidFile}\nwait`);
  const started = performance.now();
  await assert.rejects(runHook(path, {}, { timeoutMs: 300 }), { code: 'HOOK_FAILED', message: /300 ms/ });
  assert.ok(performance.now() - started < 10_000);
  const child = Number(readFileSync(pidFile, 'utf8'));
  const deadline = performance.now() + 5000;
  while (isRunning(child)) {
    assert.ok(performance.now() < deadline, 'the child of the hook still runs');
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
});

/** A killed process stays a zombie until its parent reaps it. */
function isRunning(pid: number): boolean {
  try {
    return !/\) [ZX]/.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
  } catch {
    return false;
  }
}

test('cancelling ends a hook', async () => {
  const cancel = new AbortController();
  const running = runHook(hook('sleep 60'), {}, { timeoutMs: 60_000, signal: cancel.signal });
  setImmediate(() => cancel.abort());
  await assert.rejects(running, { code: 'CANCELLED' });
  await assert.rejects(runHook(hook('true'), {}, { timeoutMs: 1000, signal: cancel.signal }), {
    code: 'CANCELLED',
  });
});
