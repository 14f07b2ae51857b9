/**
 * Proves that a frozen filesystem thaws within the allowed time, whatever ends the job: SIGKILL, SIGTERM or
 * SIGSTOP of the daemon, Ctrl-C, or stopbackup in any phase. Nothing stays frozen or running. The job is
 * reported correctly afterwards, also by a daemon that was started again.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import {
  ask,
  assertNothingLeft,
  backUpWell,
  childrenOf,
  daemonFor,
  jobStatus,
  scratchFor,
  scriptIn,
  startJob,
  untilEnded,
  untilFile,
  untilJob,
  writeThrough,
} from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { dattocli, startDaemon, type TestDaemon, waitFor } from '../helpers/daemon.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertWhole } from '../helpers/image-proof.ts';
import { makeLoop, umount } from '../helpers/loop.ts';
import { isAlive } from '../helpers/nbd-process.ts';

const whole = { after };
const scratch = scratchFor(whole, { memory: true });
const server = await startDattosrv(whole, ['--create']);
const size = 96 * MiB;
const disk = await makeLoop(whole, { size, filesystem: 'ext4', mount: true });
const mountPoint = disk.mountPoint!;
await fillWithFiles(mountPoint, 24 * MiB);

const target = ['--device', disk.device, '--target', server.uriOf(`killed@${size}`)];
const frozen = join(scratch, 'frozen');
/** Makes a file when everything is frozen, and keeps the freeze until the file is removed, or for 15 s. */
const hook = await scriptIn(scratch, 'stay-frozen', [
  `: > ${frozen}`,
  `for i in $(seq 300); do [ -e ${frozen} ] || exit 0; sleep 0.05; done`,
]);
const maxFreezeMs = 6000;
const staysFrozen = [...target, '--frozen-hook', hook, '--max-freeze', `${maxFreezeMs}ms`];

async function untilFrozen(): Promise<void> {
  await untilFile(frozen);
}

/** Asserts that the filesystem accepts writes within the allowed time from now. */
async function assertThaws(): Promise<number> {
  const ms = await writeThrough(mountPoint, maxFreezeMs + 2000);
  assert.ok(ms < maxFreezeMs + 1000, `it took ${ms} ms`);
  return ms;
}

const setting = '/sys/kernel/rcu_expedited';

/**
 * Returns true if the daemon has changed the setting, or if another daemon of this machine has, which then
 * keeps the note.
 */
function isSettingChanged(daemon: TestDaemon): boolean {
  if (!existsSync(setting) || existsSync(join(daemon.runDirectory, 'rcu-expedited'))) return true;
  return readFileSync(setting, 'latin1').trim() === '1';
}

/**
 * Starts a job that stays frozen, with the setting changed. If another daemon froze before it, the daemon
 * leaves the setting to that one. The other daemon may restore the setting in the middle of the freeze; then
 * the job is started again.
 */
async function startFrozen(daemon: TestDaemon): Promise<string> {
  for (let attempt = 1; attempt <= 5; attempt++) {
    const job = await startJob(daemon, staysFrozen);
    await untilFrozen();
    if (isSettingChanged(daemon)) return job;
    await rm(frozen, { force: true });
    await untilEnded(daemon, job);
  }
  assert.fail(`${setting} was not changed in any of 5 freezes`);
}

/** Waits until the setting is restored, because other daemons on this machine may freeze too. */
async function untilSettingIsBack(daemon: TestDaemon): Promise<void> {
  const note = join(daemon.runDirectory, 'rcu-expedited');
  await waitFor('the setting of the kernel is put back', 30_000, () => {
    return !existsSync(note) && (!existsSync(setting) || readFileSync(setting, 'latin1').trim() === '0');
  });
}

const nothingLeft = { devices: [disk.device], mountPoints: [mountPoint] };

test('SIGKILL while frozen: it thaws at once, and the next daemon reports the job as failed', async (t) => {
  await rm(frozen, { force: true });
  const first = await startDaemon();
  let second: TestDaemon | undefined;
  atEnd(t, () => rm(frozen, { force: true }));
  try {
    const job = await startFrozen(first);
    const guards = childrenOf(first.pid);
    await first.kill();
    const ms = await assertThaws();
    t.diagnostic(`thawed ${Math.round(ms)} ms after the SIGKILL`);
    await rm(frozen);
    await waitFor('guard and hook end', 5000, () => !guards.some(isAlive));
    await untilSettingIsBack(first);

    second = await startDaemon({ paths: first });
    const status = await jobStatus(second, job);
    assert.equal(status.state, 'FAILED');
    assert.equal(status.error?.code, 'JOB_INTERRUPTED');
    assert.match(status.error.message, /killed or crashed/);
    const shown = await dattocli(['backupstatus', job], second);
    assert.match(shown.stdout, /FAILED[^]*killed or crashed/);
    await assertNothingLeft(second, nothingLeft);
    await backUpWell(second, target);
    await assertWhole('ext4', join(server.directory, 'killed'), 'frozen');
  } finally {
    await (second ?? first).stop();
  }
});

test('SIGKILL of daemon and guard while frozen: the next daemon thaws', async (t) => {
  await rm(frozen, { force: true });
  const first = await startDaemon();
  let second: TestDaemon | undefined;
  atEnd(t, () => rm(frozen, { force: true }));
  try {
    const job = await startJob(first, staysFrozen);
    await untilFrozen();
    const children = childrenOf(first.pid);
    // The guard first, because it thaws when its daemon dies.
    for (const child of children) process.kill(child, 'SIGSTOP');
    await first.kill();
    for (const child of children) process.kill(child, 'SIGKILL');
    await waitFor('guard and hook end', 5000, () => !children.some(isAlive));
    second = await startDaemon({ paths: first });
    await assertThaws();
    await untilSettingIsBack(first);
    assert.equal((await jobStatus(second, job)).error?.code, 'JOB_INTERRUPTED');
    await assertNothingLeft(second, nothingLeft);
  } finally {
    await (second ?? first).stop();
  }
});

test('SIGTERM while frozen: cancelled, thawed, exit code 0', async (t) => {
  await rm(frozen, { force: true });
  atEnd(t, () => rm(frozen, { force: true }));
  const first = await startDaemon();
  const job = await startJob(first, staysFrozen);
  await untilFrozen();
  first.child.kill('SIGTERM');
  await assertThaws();
  await waitFor('the daemon ends', 10_000, () => first.child.exitCode !== null);
  assert.equal(first.child.exitCode, 0);
  const second = await startDaemon({ paths: first });
  try {
    const status = await jobStatus(second, job);
    assert.equal(status.state, 'CANCELLED');
    assert.match(status.error?.message ?? '', /SIGTERM/);
    await assertNothingLeft(second, nothingLeft);
  } finally {
    await second.stop();
  }
});

test('SIGSTOP while frozen: the guard thaws at the deadline, and the job fails', async (t) => {
  await rm(frozen, { force: true });
  atEnd(t, () => rm(frozen, { force: true }));
  const daemon = await daemonFor(t);
  const job = await startJob(daemon, [...target, '--frozen-hook', hook, '--max-freeze', '1500ms']);
  await untilFrozen();
  daemon.child.kill('SIGSTOP');
  try {
    const ms = await writeThrough(mountPoint, 5000);
    assert.ok(ms < 2500, `${ms} ms`);
  } finally {
    daemon.child.kill('SIGCONT');
  }
  const status = await untilEnded(daemon, job);
  assert.deepEqual([status.state, status.error?.code], ['FAILED', 'FREEZE_TIMEOUT']);
  await assertNothingLeft(daemon, nothingLeft);
});

test('a freeze beyond the allowed time ends by itself, and the job fails', async (t) => {
  await rm(frozen, { force: true });
  atEnd(t, () => rm(frozen, { force: true }));
  const daemon = await daemonFor(t);
  const job = await startJob(daemon, [...target, '--frozen-hook', hook, '--max-freeze', '1500ms']);
  await untilFrozen();
  const ms = await writeThrough(mountPoint, 5000);
  assert.ok(ms > 200 && ms < 2500, `${ms} ms`);
  const status = await untilEnded(daemon, job);
  assert.deepEqual(
    [status.state, status.error?.code],
    ['FAILED', 'FREEZE_TIMEOUT'],
    JSON.stringify(status.error),
  );
  assert.match(status.error?.hint ?? '', /--max-freeze/);
  await assertNothingLeft(daemon, nothingLeft);
});

test('stopbackup while copying, while paused, and while frozen; pause and resume', async (t) => {
  await rm(frozen, { force: true });
  atEnd(t, () => rm(frozen, { force: true }));
  const daemon = await daemonFor(t);
  const slow = [...target, '--rate', '6M'];
  const stop = async (job: string): Promise<void> => {
    const start = performance.now();
    const { code, stdout } = await dattocli(['stopbackup', job], daemon);
    assert.deepEqual([code, stdout], [0, `${job} has ended\n`]);
    assert.ok(performance.now() - start < 5000, `${performance.now() - start} ms`);
    const status = await jobStatus(daemon, job);
    assert.deepEqual([status.state, status.error?.code], ['CANCELLED', 'CANCELLED']);
    await assertNothingLeft(daemon, nothingLeft);
  };
  const copied = (job: string, bytes: number) =>
    untilJob(daemon, job, 'bytes move', (status) => (status.devices[0]?.bytes_sent ?? 0) > bytes);

  const copying = await startJob(daemon, slow);
  await copied(copying, MiB);
  await stop(copying);

  const paused = await startJob(daemon, slow);
  await copied(paused, MiB);
  assert.equal((await dattocli(['pausebackup', paused], daemon)).code, 0);
  let last = -1;
  await waitFor('nothing moves any more', 10_000, async () => {
    const before = last;
    last = (await jobStatus(daemon, paused)).devices[0]?.bytes_sent ?? 0;
    await new Promise((resolve) => setTimeout(resolve, 200));
    return before === last;
  });
  assert.equal((await jobStatus(daemon, paused)).paused, true);
  assert.equal((await dattocli(['resumebackup', paused], daemon)).code, 0);
  await copied(paused, last + MiB);
  assert.equal((await dattocli(['pausebackup', paused], daemon)).code, 0);
  await stop(paused);

  const held = await startJob(daemon, staysFrozen);
  await untilFrozen();
  await stop(held);
  const again = await dattocli(['stopbackup', held, '--json'], daemon);
  assert.equal(again.code, 1);
  assert.match(again.stderr, /"JOB_NOT_RUNNING".*Job not running/);

  // After all of that a backup is still right.
  await rm(frozen, { force: true });
  await backUpWell(daemon, target);
  await assertWhole('ext4', join(server.directory, 'killed'), 'frozen');
});

test('Ctrl-C of startbackup --wait cancels the job: exit code 4', async (t) => {
  const daemon = await daemonFor(t);
  const interrupt = new AbortController();
  const waiting = dattocli(['startbackup', '--full', '--wait', ...target, '--rate', '6M'], daemon, {
    signal: interrupt.signal,
  });
  await waitFor('the job runs', 20_000, async () => {
    const [job] = await ask<{ devices: { bytes_sent: number }[] }[]>(daemon.socket, '/v1/jobs');
    return (job?.devices[0]?.bytes_sent ?? 0) > 0;
  });
  interrupt.abort();
  const { code, stdout, stderr } = await waiting;
  assert.equal(code, 4, stderr);
  assert.match(stderr, /cancel|stopped/i);
  assert.equal((await jobStatus(daemon, stdout.split('\n')[0]!)).state, 'CANCELLED');
  await assertNothingLeft(daemon, nothingLeft);
});

test('the filesystem is unmounted during the copy: the job fails, and nothing else is frozen', async (t) => {
  const daemon = await daemonFor(t);
  const other = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
  await fillWithFiles(other.mountPoint!, 8 * MiB);
  const job = await startJob(daemon, [
    ...['--device', other.device, '--target', server.uriOf(`unmounted@${64 * MiB}`), '--rate', '6M'],
  ]);
  await untilJob(daemon, job, 'bytes move', (status) => (status.devices[0]?.bytes_sent ?? 0) > MiB);
  await umount(other.mountPoint!);
  const status = await untilEnded(daemon, job);
  try {
    assert.equal(status.state, 'FAILED', JSON.stringify(status));
    assert.match(status.error?.message ?? '', /mount/);
    await assertNothingLeft(daemon, { devices: [other.device], mountPoints: [mountPoint, other.directory] });
  } finally {
    await exec('mount', [other.device, other.mountPoint!]);
  }
});
