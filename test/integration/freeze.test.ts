/**
 * Proves that a frozen filesystem always thaws. Writers block and then continue. No death or stop of the
 * agent or its guard leaves anything frozen. A freeze by another process stays. The oracles are a writing
 * process with its state in the kernel, and util-linux' fsfreeze.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MiB } from '../../src/base/bytes.ts';
import { silentLog } from '../../src/base/log.ts';
import { createFreezer } from '../../src/freeze/freezer.ts';
import { thawLeftovers } from '../../src/freeze/leftovers.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { makeLoop, umount } from '../helpers/loop.ts';

const agentProgram = fileURLToPath(new URL('../helpers/freeze-agent.ts', import.meta.url));
const ext4 = { size: 64 * MiB, filesystem: 'ext4', mount: true } as const;
const xfs = { size: 320 * MiB, filesystem: 'xfs', mount: true } as const;

for (const options of [ext4, xfs])
  test(`a writer waits while ${options.filesystem} is frozen, and continues after the thaw`, async (t) => {
    const { mountPoint } = await makeLoop(t, options);
    const freezer = await createFreezer({ ...(await common(t)), mounts: [mountPoint!], maxFreezeMs: 20_000 });
    atEnd(t, () => freezer.close());
    const before = performance.now();
    const { frozenAt } = await freezer.freeze();
    assert.ok(frozenAt >= before - 2 && frozenAt <= performance.now());
    const writer = await blockedWriter(t, mountPoint!);
    const report = await freezer.thaw();
    const elapsed = performance.now() - before;
    await writer.done(5000);
    assert.deepEqual(
      report.perMount.map(({ path }) => path),
      [mountPoint],
    );
    assert.ok(report.frozenMs > 0 && report.frozenMs <= elapsed);
    assert.equal(freezer.expiredSignal.aborted, false);
    await freezer.close();
  });

test('the guard thaws at the deadline, and the agent is notified', async (t) => {
  const { mountPoint } = await makeLoop(t, ext4);
  const run = await common(t);
  const freezer = await createFreezer({ ...run, mounts: [mountPoint!], maxFreezeMs: 400 });
  atEnd(t, () => freezer.close());
  await freezer.freeze();
  const writer = await blockedWriter(t, mountPoint!);
  await writer.done(400 + 2000);
  await until('the expired signal', () => freezer.expiredSignal.aborted);
  await assert.rejects(freezer.thaw(), { code: 'FREEZE_TIMEOUT' });
  assert.deepEqual(await readdir(run.runDirectory), []);
});

test('an agent killed with SIGKILL leaves nothing frozen', async (t) => {
  const { mountPoint } = await makeLoop(t, ext4);
  const run = await common(t);
  const agent = await startAgent(t, run.runDirectory, 20_000, mountPoint!);
  const untilSettingIsBack = await changeSetting(t, run.runDirectory);
  await agent.says(/^frozen/);
  const writer = await blockedWriter(t, mountPoint!);
  agent.child.kill('SIGKILL');
  // The thaw comes at once, not only at the deadline of 20 s.
  await writer.done(3000);
  await untilSettingIsBack();
  await until('the record to go', async () => (await readdir(run.runDirectory)).length === 0);
});

test('an agent stopped with SIGSTOP cannot hold a freeze beyond the deadline', async (t) => {
  const { mountPoint } = await makeLoop(t, ext4);
  const run = await common(t);
  const agent = await startAgent(t, run.runDirectory, 1000, mountPoint!);
  await agent.says(/^frozen/);
  agent.child.kill('SIGSTOP');
  const writer = await blockedWriter(t, mountPoint!);
  await writer.done(1000 + 2000);
  agent.child.kill('SIGCONT');
  agent.child.stdin!.write('thaw\n');
  await agent.says(/^expired FREEZE_TIMEOUT/);
  await agent.says(/^failed FREEZE_TIMEOUT/);
});

test('when the guard is killed, the agent thaws in its place', async (t) => {
  const { mountPoint } = await makeLoop(t, ext4);
  const run = await common(t);
  const agent = await startAgent(t, run.runDirectory, 20_000, mountPoint!);
  const guard = await agent.frozenBy();
  const writer = await blockedWriter(t, mountPoint!);
  process.kill(guard, 'SIGKILL');
  await writer.done(3000);
  await agent.says(/^expired FREEZE_FAILED/);
  assert.deepEqual(await readdir(run.runDirectory), []);
});

test('when the guard is stopped, the agent thaws in its place soon after the deadline', async (t) => {
  const { mountPoint } = await makeLoop(t, ext4);
  const run = await common(t);
  const agent = await startAgent(t, run.runDirectory, 700, mountPoint!);
  process.kill(await agent.frozenBy(), 'SIGSTOP');
  const writer = await blockedWriter(t, mountPoint!);
  await writer.done(700 + 3000);
  await agent.says(/^expired FREEZE_TIMEOUT/);
});

test('when agent and guard are both killed, the next start thaws their freezes', async (t) => {
  const { mountPoint } = await makeLoop(t, ext4);
  const run = await common(t);
  const agent = await startAgent(t, run.runDirectory, 20_000, mountPoint!);
  const guard = await agent.frozenBy();

  // As long as the guard lives, a starting daemon does not touch its freeze.
  assert.deepEqual(await thawLeftovers(run.runDirectory, silentLog()), {
    thawed: [],
    held: [mountPoint],
    failures: [],
  });
  agent.child.kill('SIGSTOP');
  process.kill(guard, 'SIGKILL');
  agent.child.kill('SIGKILL');
  await once(agent.child, 'exit');
  await until('the guard to be gone', async () => !(await isRunning(guard)));
  const writer = await blockedWriter(t, mountPoint!);
  const untilSettingIsBack = await changeSetting(t, run.runDirectory);
  assert.deepEqual(await thawLeftovers(run.runDirectory, silentLog()), {
    thawed: [mountPoint],
    held: [],
    failures: [],
  });
  await writer.done(3000);
  await untilSettingIsBack();
  assert.deepEqual(await readdir(run.runDirectory), []);
});

test('a freeze by another process is refused and stays, and earlier freezes are thawed', async (t) => {
  const first = await makeLoop(t, ext4);
  const second = await makeLoop(t, ext4);
  const run = await common(t);
  await exec('fsfreeze', ['--freeze', second.mountPoint!]);
  const freezer = await createFreezer({
    ...run,
    mounts: [first.mountPoint!, second.mountPoint!],
    maxFreezeMs: 20_000,
  });
  await assert.rejects(freezer.freeze(), {
    code: 'ALREADY_FROZEN',
    message: new RegExp(second.mountPoint!),
  });
  await exec('sh', ['-c', 'echo written > "$1"', '-', join(first.mountPoint!, 'file')], { timeoutMs: 5000 });
  const again = await exec('fsfreeze', ['--freeze', second.mountPoint!], { allow: [1] });
  assert.match(again.stderr, /busy/);
  await exec('fsfreeze', ['--unfreeze', second.mountPoint!]);
  assert.deepEqual(await readdir(run.runDirectory), []);
});

test('a freeze that another process ended does not count as one instant', async (t) => {
  const { mountPoint } = await makeLoop(t, ext4);
  const freezer = await createFreezer({ ...(await common(t)), mounts: [mountPoint!], maxFreezeMs: 20_000 });
  atEnd(t, () => freezer.close());
  await freezer.freeze();
  await exec('fsfreeze', ['--unfreeze', mountPoint!]);
  await assert.rejects(freezer.thaw(), { code: 'FREEZE_FAILED', message: /another program/ });
});

test('a filesystem on a loop file and the one that holds the file freeze and thaw together', async (t) => {
  const outer = await makeLoop(t, { ...ext4, size: 256 * MiB });
  const inner = await makeLoop(t, { ...ext4, directory: outer.mountPoint! });
  const run = await common(t);
  for (let round = 0; round < 3; round++) {
    const freezer = await createFreezer({
      ...run,
      mounts: [inner.mountPoint!, outer.mountPoint!],
      maxFreezeMs: 20_000,
    });
    await freezer.freeze();
    const writers = [await blockedWriter(t, inner.mountPoint!), await blockedWriter(t, outer.mountPoint!)];
    const report = await freezer.thaw();
    for (const writer of writers) await writer.done(5000);
    assert.equal(report.perMount.length, 2);
    assert.deepEqual(report.failures, []);
    await freezer.close();
  }
  // The same holds without a request to thaw: the guard's deadline ends both.
  const agent = await startAgent(t, run.runDirectory, 20_000, inner.mountPoint!, outer.mountPoint!);
  await agent.says(/^frozen/);
  const writer = await blockedWriter(t, inner.mountPoint!);
  agent.child.kill('SIGKILL');
  await writer.done(5000);
});

test('filesystems that cannot be frozen are refused with the next step', async (t) => {
  const disk = await makeLoop(t, ext4);
  const run = await common(t);
  // This is a new tmpfs, because a tmpfs has no freeze operation in any kernel, like vfat.
  const memory = join(disk.directory, 'memory');
  await mkdir(memory);
  await exec('mount', ['-t', 'tmpfs', 'none', memory]);
  atEnd(t, () => umount(memory));
  const freezer = await createFreezer({ ...run, mounts: [memory], maxFreezeMs: 1000 });
  await assert.rejects(freezer.freeze(), { code: 'FREEZE_FAILED', message: /type of filesystem/ });

  await assert.rejects(
    createFreezer({ ...run, runDirectory: disk.mountPoint!, mounts: [disk.mountPoint!], maxFreezeMs: 1000 }),
    { code: 'FREEZE_FAILED', message: /about to be frozen/ },
  );
  await assert.rejects(createFreezer({ ...run, mounts: ['/no/such/mount'], maxFreezeMs: 1000 }), {
    code: 'FREEZE_FAILED',
  });
});

test('a job cancelled while frozen, or while freezing, thaws', async (t) => {
  const { mountPoint } = await makeLoop(t, ext4);
  const run = await common(t);
  const freezer = await createFreezer({ ...run, mounts: [mountPoint!], maxFreezeMs: 20_000 });
  await freezer.freeze();
  const writer = await blockedWriter(t, mountPoint!);
  await freezer.close();
  await writer.done(3000);
  assert.equal(freezer.expiredSignal.aborted, false);

  const cancel = new AbortController();
  const second = await createFreezer({
    ...run,
    mounts: [mountPoint!],
    maxFreezeMs: 20_000,
    signal: cancel.signal,
  });
  const freezing = second.freeze();
  cancel.abort();
  await assert.rejects(freezing, { code: 'CANCELLED' });
  await exec('sh', ['-c', 'echo written > "$1"', '-', join(mountPoint!, 'file')], { timeoutMs: 5000 });
  assert.deepEqual(await readdir(run.runDirectory), []);
});

async function common(t: EndingTest): Promise<{ runDirectory: string; log: ReturnType<typeof silentLog> }> {
  const runDirectory = await mkdtemp('/dev/shm/dattod-freeze-');
  atEnd(t, () => rm(runDirectory, { recursive: true, force: true }));
  return { runDirectory, log: silentLog() };
}

/**
 * Changes the machine's setting for grace periods, like a daemon while something is frozen
 * (grace-periods.ts).
 */
async function changeSetting(t: EndingTest, runDirectory: string): Promise<() => Promise<void>> {
  const setting = '/sys/kernel/rcu_expedited';
  const note = join(runDirectory, 'rcu-expedited');
  if (!existsSync(setting)) return () => Promise.resolve();
  atEnd(t, () => writeFile(setting, '0'));
  await writeFile(note, '0');
  await writeFile(setting, '1');
  // A daemon of another test may have changed it for a moment.
  return () =>
    until(
      'the setting to be put back',
      async () => !existsSync(note) && (await readFile(setting, 'latin1')).trim() === '0',
    );
}

interface Writer {
  /** Waits until the write is done; fails after `ms`. */
  done(ms: number): Promise<void>;
}

/** Starts a process that makes a file, and returns when the kernel blocks the process in that call. */
async function blockedWriter(t: EndingTest, mountPoint: string): Promise<Writer> {
  const path = join(mountPoint, `written-${Math.random().toString(36).slice(2)}`);
  const child = spawn('sh', ['-c', 'echo written > "$1"', '-', path], { stdio: 'ignore' });
  const exited = once(child, 'exit');
  atEnd(t, () => void child.kill('SIGKILL'));
  await until('the writer to block', async () => {
    assert.equal(child.exitCode, null, `a write to ${mountPoint} went through: it is not frozen`);
    return (await stateOf(child.pid!)) === 'D';
  });
  return {
    done: async (ms) => {
      const late = sleep(ms, 'late' as const, { ref: false });
      const first = await Promise.race([exited, late]);
      assert.notEqual(first, 'late', `a write to ${mountPoint} still waits after ${ms} ms`);
      assert.equal(await readFile(path, 'utf8'), 'written\n');
    },
  };
}

async function stateOf(pid: number): Promise<string | undefined> {
  const text = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => '');
  return text.slice(text.lastIndexOf(')') + 2).split(' ')[0];
}

async function isRunning(pid: number): Promise<boolean> {
  const state = await stateOf(pid);
  return state !== undefined && state !== '' && state !== 'Z';
}

interface Agent {
  readonly child: ChildProcess;
  says(pattern: RegExp): Promise<string>;
  /** Waits for the freeze. Returns the pid of the guard. */
  frozenBy(): Promise<number>;
}

async function startAgent(
  t: EndingTest,
  runDirectory: string,
  maxFreezeMs: number,
  ...mounts: string[]
): Promise<Agent> {
  const child = spawn(process.execPath, [agentProgram, runDirectory, String(maxFreezeMs), ...mounts], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  child.stdin.on('error', () => undefined);
  atEnd(t, async () => {
    child.kill('SIGKILL');
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
  });
  const lines: string[] = [];
  createInterface({ input: child.stdout }).on('line', (line) => lines.push(line));
  const agent: Agent = {
    child,
    says: async (pattern) => {
      await until(
        `the agent to say ${pattern.source}`,
        () => lines.some((line) => pattern.test(line)),
        () => lines.join(' | '),
      );
      return lines.find((line) => pattern.test(line))!;
    },
    frozenBy: async () => Number((await agent.says(/^frozen \d+/)).split(' ')[1]),
  };
  await agent.says(/^ready/);
  return agent;
}

async function until(
  what: string,
  condition: () => boolean | Promise<boolean>,
  about: () => string = () => '',
): Promise<void> {
  const end = performance.now() + 10_000;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`waited in vain for ${what} ${about()}`);
    await sleep(10);
  }
}
