/**
 * Tests dattod as a process: one instance, detaching, signals, a kill, two daemons at once. The engine copies
 * nothing (dattod-fake.ts), so that a test decides how long its jobs take. Everything else is real.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import {
  daemonPaths,
  type DaemonPaths,
  dattocli,
  isHealthy,
  runProgram,
  startDaemon,
  type StartOptions,
  type TestDaemon,
  waitFor,
} from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';

const entry = 'test/helpers/dattod-fake.ts';

async function start(t: EndingTest, options: StartOptions = {}): Promise<TestDaemon> {
  const daemon = await startDaemon({ entry, ...options });
  atEnd(t, async () => {
    await daemon.stop();
  });
  return daemon;
}

/** Runs dattod without --foreground. Its remains are removed at the end. */
async function detached(t: EndingTest, paths: DaemonPaths, ...more: string[]) {
  const result = await runProgram(entry, [...paths.arguments, ...more]);
  const pid = readPid(paths);
  atEnd(t, async () => {
    if (pid !== undefined && isAlive(pid)) process.kill(pid, 'SIGTERM');
    if (pid !== undefined) await waitFor('the daemon ends', 10_000, () => !isAlive(pid));
    rmSync(paths.directory, { recursive: true, force: true });
  });
  return { ...result, pid };
}

function readPid({ pidFile }: DaemonPaths): number | undefined {
  return existsSync(pidFile) ? Number(readFileSync(pidFile, 'utf8')) : undefined;
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie that its parent has not waited for has ended too.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

const startJob = (how: string, device = '/dev/fda1', ...more: string[]) => [
  ...['startbackup', '--full', '--device', device, '--target', `nbd://${how}/${how}`, ...more],
];

test('curl can talk to the socket, which only root may open', async (t) => {
  const daemon = await start(t);
  const { stdout } = await exec('curl', [
    ...['--silent', '--fail', '--unix-socket', daemon.socket, 'http://localhost/v1/jobs'],
    ...['-d', '{"kind":"full","devices":[{"device":"/dev/fda1","target":"nbd://h/done"}]}'],
  ]);
  const { uuid } = JSON.parse(stdout) as { uuid: string };
  const events = await exec('curl', [
    ...['--silent', '--no-buffer', '--unix-socket', daemon.socket, `http://localhost/v1/jobs/${uuid}/events`],
  ]);
  assert.match(events.stdout, /^event: status\ndata: \{.*"state":"SUCCEEDED".*\}\n\n$/ms);
  assert.equal(statSync(daemon.socket).mode & 0o777, 0o600);
  const asNobody = await exec(
    'setpriv',
    [
      ...['--reuid=65534', '--regid=65534', '--clear-groups'],
      ...['curl', '--silent', '--unix-socket', daemon.socket, 'http://localhost/v1/health'],
    ],
    { allow: [7] },
  );
  assert.equal(asNobody.code, 7, 'curl cannot connect');
});

test('dattod detaches into its own session, and is ready when the command returns', async (t) => {
  const paths = daemonPaths();
  const { code, stdout, stderr, pid } = await detached(t, paths);
  assert.deepEqual([code, stdout, stderr], [0, '', '']);
  assert.ok(pid !== undefined && pid !== process.pid);
  assert.equal(await isHealthy(paths.socket), true);
  // proc(5): after the name in brackets come state, ppid, pgrp, session, tty.
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  assert.deepEqual([Number(stat[3]), Number(stat[4])], [pid, 0], 'leads its session, has no terminal');
  process.kill(pid, 'SIGTERM');
  await waitFor('it ends', 10_000, () => !isAlive(pid));
  assert.deepEqual([existsSync(paths.socket), existsSync(paths.pidFile)], [false, false]);
});

test('a second start reports the running daemon, and does not disturb it', async (t) => {
  const daemon = await start(t);
  for (const more of [[], ['--foreground']]) {
    const second = await runProgram(entry, [...daemon.arguments, ...more]);
    assert.equal(second.code, 1);
    assert.match(
      second.stderr,
      new RegExp(`^dattod: dattod is already running \\(pid ${daemon.pid}\\) \\(.*\\)\n$`),
    );
  }
  assert.equal(await isHealthy(daemon.socket), true);
  // The pid file differs but the state directory is the same, and the history is locked too.
  const third = await runProgram(entry, [
    ...daemon.arguments,
    '--pid-file',
    `${daemon.pidFile}2`,
    '--foreground',
  ]);
  assert.equal(third.code, 1);
  assert.match(third.stderr, /^dattod: Another dattod uses the job history /);
  assert.equal(existsSync(`${daemon.pidFile}2`), false);
  assert.equal(await isHealthy(daemon.socket), true);
});

test('two daemons run side by side', async (t) => {
  const [one, two] = await Promise.all([start(t), start(t)]);
  const [first, second] = await Promise.all([
    dattocli(startJob('done', '/dev/fda1', '--wait'), one),
    dattocli(startJob('done', '/dev/fda1', '--wait'), two),
  ]);
  assert.deepEqual([first.code, second.code], [0, 0], first.stderr + second.stderr);
  const jobs = JSON.parse((await dattocli(['jobs', '--json'], one)).stdout) as unknown[];
  assert.equal(jobs.length, 1);
});

test('SIGTERM and SIGINT cancel the jobs, exit with 0 and remove socket and pid file', async (t) => {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    const daemon = await start(t);
    const { code, stderr } = await dattocli(startJob('forever', '/dev/fda1', '--wait'), daemon, {
      onError: (text) => {
        if (text.includes('copying')) daemon.child.kill(signal);
      },
    });
    assert.equal(code, 4, stderr);
    assert.match(stderr, new RegExp(`Cancelled: dattod got ${signal}`));
    await waitFor('it ends', 10_000, () => daemon.child.exitCode !== null);
    assert.equal(daemon.child.exitCode, 0);
    assert.deepEqual([existsSync(daemon.socket), existsSync(daemon.pidFile)], [false, false]);
    const again = await start(t, { paths: daemon });
    const { stdout } = await dattocli(['jobs'], again);
    assert.match(stdout, /CANCELLED/);
  }
});

test('SIGHUP reopens the log', async (t) => {
  const daemon = await start(t);
  renameSync(daemon.logFile, `${daemon.logFile}.1`);
  daemon.child.kill('SIGHUP');
  await waitFor('a new log', 10_000, () => daemon.log().includes('the log was reopened'));
  assert.match(readFileSync(`${daemon.logFile}.1`, 'utf8'), /dattod is ready/);
});

test('after a kill the job is FAILED with the reason, and no remains cause trouble', async (t) => {
  const daemon = await start(t);
  const job = (await dattocli(startJob('forever'), daemon)).stdout.trim();
  await daemon.kill();
  assert.deepEqual([existsSync(daemon.socket), existsSync(daemon.pidFile)], [true, true]);
  const unreachable = await dattocli(['jobs'], daemon);
  assert.equal(unreachable.code, 3);
  assert.match(unreachable.stderr, /ECONNREFUSED \(start it with 'dattod'/);

  const again = await start(t, { paths: daemon });
  const { stdout } = await dattocli(['backupstatus', job, '--json'], again);
  const status = JSON.parse(stdout) as { state: string; error: { code: string; message: string } };
  assert.deepEqual([status.state, status.error.code], ['FAILED', 'JOB_INTERRUPTED']);
  assert.match(status.error.message, /killed or crashed/);
  const next = await dattocli(startJob('done', '/dev/fda1', '--wait'), again);
  assert.equal(next.code, 0);
});

test('a client that follows a job sees its end across a kill and a restart', async (t) => {
  const daemon = await start(t);
  let job = '';
  const following = dattocli(startJob('forever', '/dev/fda1', '--wait'), daemon, {
    onOutput: (text) => (job += text),
  });
  // By then the daemon has answered the start.
  await waitFor('the UUID of the job is printed', 10_000, () => job.includes('\n'));
  await daemon.kill();
  await start(t, { paths: daemon });
  const { code, stderr } = await following;
  assert.equal(code, 1, stderr);
  assert.match(stderr, /dattod was killed or crashed during the job/);
});

test('Ctrl-C cancels the job; a reader that leaves early does not', async (t) => {
  const daemon = await start(t);
  const pressed = new AbortController();
  const waiting = dattocli(startJob('forever', '/dev/fda1', '--wait'), daemon, { signal: pressed.signal });
  await waitFor('the job runs', 10_000, () => daemon.log().includes('job started'));
  pressed.abort();
  assert.equal((await waiting).code, 4);

  const cli = [process.execPath, 'src/bin/dattocli.ts', ...startJob('done', '/dev/fda2', '--wait')].join(' ');
  const { stdout } = await exec('sh', [
    '-c',
    `(${cli} --socket ${daemon.socket}; echo "exit $?" >&3) 3>&2 2>/dev/null | head -n 1`,
  ]);
  assert.match(stdout, /^[0-9a-f-]{36}\n$/);
  const jobs = JSON.parse((await dattocli(['jobs', '--json'], daemon)).stdout) as { state: string }[];
  assert.deepEqual(
    jobs.map(({ state }) => state),
    ['SUCCEEDED', 'CANCELLED'],
  );
});

test('a start that fails gives the reason in one line, exits with 1 or 2, and leaves nothing', async (t) => {
  const paths = daemonPaths();
  atEnd(t, () => rmSync(paths.directory, { recursive: true, force: true }));
  writeFileSync(paths.config, '{"job_options":{"max_freeze":1}}');
  writeFileSync(join(paths.directory, 'file'), '');
  const cases: [string[], number, RegExp][] = [
    [['--config', paths.config], 2, /config\.json: job_options: unknown key "max_freeze"/],
    [['--config', '/no/such/config'], 1, /The configuration \/no\/such\/config cannot be read: ENOENT/],
    [['--log-file', '/no/such/log'], 1, /The log \/no\/such\/log cannot be opened: ENOENT/],
    [['--socket', '/no/such/sock'], 1, /cannot listen on \/no\/such\/sock: ENOENT/],
    [['--socket', `/tmp/${'x'.repeat(120)}`], 1, /cannot listen on \/tmp\/x+: /],
    [['--state-dir', join(paths.directory, 'file')], 1, /cannot be made: EEXIST/],
    [['--pid-file', '/no/such/pid'], 1, /The pid file \/no\/such\/pid cannot be opened: ENOENT/],
    [['--log-level', 'loud'], 2, /--log-level/],
    [['--nonsense'], 2, /unknown option '--nonsense'/i],
    [['extra'], 2, /too many arguments/i],
  ];
  for (const [args, code, message] of cases)
    for (const more of [[], ['--foreground']]) {
      const result = await runProgram(entry, [...paths.arguments, ...args, ...more]);
      assert.equal(result.code, code, `${args.join(' ')}: ${result.stderr}`);
      assert.match(result.stderr, message);
      assert.match(result.stderr, /^dattod: [^\n]+\n$/, 'one line');
      assert.deepEqual([existsSync(paths.socket), existsSync(paths.pidFile)], [false, false]);
    }
});

test('without root dattod reports that it needs root', async (t) => {
  const paths = daemonPaths();
  atEnd(t, () => rmSync(paths.directory, { recursive: true, force: true }));
  const asNobody = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath];
  const probe = await exec('setpriv', [...asNobody, '--version'], { allow: [1, 126, 127] });
  if (probe.code !== 0) {
    t.skip('the checkout cannot be read by user nobody');
    return;
  }
  const { code, stderr } = await exec('setpriv', [...asNobody, entry, ...paths.arguments], { allow: [1] });
  assert.equal(code, 1);
  assert.match(stderr, /^dattod: dattod needs root, .* \(run it with sudo\)\n$/);
});

test('systemd is notified when the daemon is ready', async (t) => {
  const paths = daemonPaths();
  // Replaces systemd's own tool, which would talk to the service manager.
  const tool = join(paths.directory, 'systemd-notify');
  writeFileSync(tool, `#!/bin/sh\necho "$@" > ${paths.directory}/told\n`, { mode: 0o755 });
  const daemon = await start(t, {
    paths,
    environment: { NOTIFY_SOCKET: '/nowhere', PATH: `${paths.directory}:${process.env['PATH'] ?? ''}` },
  });
  await waitFor('the notice', 10_000, () => existsSync(join(paths.directory, 'told')));
  assert.equal(readFileSync(join(paths.directory, 'told'), 'utf8'), `--ready --pid=${daemon.pid}\n`);
});
