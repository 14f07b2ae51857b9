/**
 * Helpers for the tests of backups: a daemon that ends with the test, backups by `dattocli`, and the status
 * of a running job. Also the proof that a job leaves nothing behind.
 *
 *     const daemon = await daemonFor(t);
 *     const { status } = await backUp(daemon, ['--device', disk.device, '--target', server.uri]);
 */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ErrorDocument } from '../../src/base/errors.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { atEnd, type EndingTest } from './cleanup.ts';
import {
  type DaemonPaths,
  dattocli,
  type ProgramResult,
  startDaemon,
  type StartOptions,
  type TestDaemon,
  waitFor,
} from './daemon.ts';
import { exec } from './exec.ts';

/** Starts a daemon that is stopped at the end of the test. */
export async function daemonFor(t: EndingTest, options: StartOptions = {}): Promise<TestDaemon> {
  const daemon = await startDaemon(options);
  atEnd(t, async () => {
    await daemon.stop();
  });
  return daemon;
}

/**
 * Makes a directory that other users may enter (the user `nbd`), removed at the end. `memory`: on a tmpfs.
 */
export function scratchFor(t: EndingTest, options: { memory?: boolean } = {}): string {
  const parent = options.memory === true && existsSync('/dev/shm') ? '/dev/shm' : tmpdir();
  const directory = mkdtempSync(join(parent, 'backup-test-'));
  chmodSync(directory, 0o755);
  atEnd(t, () => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

/** Writes an executable shell script, for use as a hook. */
export async function scriptIn(directory: string, name: string, lines: readonly string[]): Promise<string> {
  const path = join(directory, name);
  await writeFile(path, ['#!/bin/sh', 'set -e', ...lines, ''].join('\n'), { mode: 0o755 });
  return path;
}

export interface BackupResult extends ProgramResult {
  readonly status: JobStatus;
}

export type KindFlag = '--full' | '--incremental' | '--differential';

/** Runs `dattocli startbackup --full --wait --json` to its end. Fails if the start was refused. */
export async function backUp(
  daemon: Pick<DaemonPaths, 'socket'>,
  args: readonly string[],
  kind: KindFlag = '--full',
): Promise<BackupResult> {
  const result = await dattocli(['startbackup', kind, '--wait', '--json', ...args], daemon);
  assert.notEqual(result.stdout, '', `startbackup ${args.join(' ')} was refused: ${result.stderr}`);
  return { ...result, status: JSON.parse(result.stdout) as JobStatus };
}

/** Like `backUp`, for backups that have to succeed without warnings. */
export async function backUpWell(
  daemon: Pick<DaemonPaths, 'socket'>,
  args: readonly string[],
  kind: KindFlag = '--full',
): Promise<JobStatus> {
  const { status, code, stderr } = await backUp(daemon, args, kind);
  assert.deepEqual(
    [status.state, status.error, status.warnings, code],
    ['SUCCEEDED', null, [], 0],
    `${args.join(' ')}\n${stderr}`,
  );
  return status;
}

/** Runs `dattocli startbackup --full` without waiting. Returns the job's UUID. */
export async function startJob(
  daemon: Pick<DaemonPaths, 'socket'>,
  args: readonly string[],
  kind: KindFlag = '--full',
): Promise<string> {
  const { code, stdout, stderr } = await dattocli(['startbackup', kind, ...args], daemon);
  assert.equal(code, 0, stderr);
  return stdout.split('\n')[0]!;
}

/**
 * Asserts that `dattocli` refuses with this error: one line for people, one JSON document for scripts, the
 * right exit code, nothing on standard output. Returns the document.
 */
export async function refused(
  daemon: Pick<DaemonPaths, 'socket'>,
  args: readonly string[],
  code: ErrorDocument['code'],
  exitCode = 1,
): Promise<ErrorDocument> {
  const plain = await dattocli(args, daemon);
  assert.deepEqual([plain.code, plain.stdout], [exitCode, ''], plain.stderr);
  assert.match(plain.stderr, /^dattocli: [^\n]+\n$/);
  const json = await dattocli([...args, '--json'], daemon);
  assert.deepEqual([json.code, json.stdout], [exitCode, ''], json.stderr);
  assert.equal(json.stderr.trim().split('\n').length, 1);
  const document = JSON.parse(json.stderr) as ErrorDocument;
  assert.equal(document.code, code, json.stderr);
  assert.ok(document.hint !== undefined && document.hint.length > 10, `no next step: ${json.stderr}`);
  return document;
}

/** Sends a request to the API, which is quicker than a process of `dattocli`. */
export function ask<T>(socket: string, path: string, method = 'GET'): Promise<T> {
  return new Promise((resolve, reject) => {
    request({ socketPath: socket, path, method, timeout: 30_000 }, (response) => {
      let text = '';
      response.setEncoding('utf8').on('data', (chunk: string) => (text += chunk));
      response.once('end', () => {
        if (response.statusCode !== undefined && response.statusCode < 300) resolve(JSON.parse(text) as T);
        else reject(new Error(text));
      });
    })
      .once('error', reject)
      .end();
  });
}

export function jobStatus(daemon: Pick<DaemonPaths, 'socket'>, job: string): Promise<JobStatus> {
  return ask<JobStatus>(daemon.socket, `/v1/jobs/${job}`);
}

/** Waits until the running job's status meets the condition. Fails if the job ends before. */
export async function untilJob(
  daemon: Pick<DaemonPaths, 'socket'>,
  job: string,
  what: string,
  condition: (status: JobStatus) => boolean,
  ms = 60_000,
): Promise<JobStatus> {
  let status = await jobStatus(daemon, job);
  await waitFor(what, ms, async () => {
    status = await jobStatus(daemon, job);
    if (condition(status)) return true;
    if (hasEnded(status)) throw new Error(`the job ended before: ${what}\n${JSON.stringify(status)}`);
    return false;
  });
  return status;
}

export function untilEnded(
  daemon: Pick<DaemonPaths, 'socket'>,
  job: string,
  ms = 60_000,
): Promise<JobStatus> {
  return untilJob(daemon, job, `end of job ${job}`, hasEnded, ms);
}

function hasEnded({ state }: JobStatus): boolean {
  return state !== 'IN_PROGRESS' && state !== 'NOT_STARTED';
}

/** Waits until a file exists. Hooks make a file to report their progress to the test. */
export function untilFile(path: string, ms = 60_000): Promise<void> {
  return waitFor(`${path} is made`, ms, () => existsSync(path));
}

/**
 * Writes to a filesystem and waits for the disk, so it does not return while the filesystem is frozen.
 * Returns the milliseconds that it took.
 */
export async function writeThrough(mountPoint: string, timeoutMs = 20_000): Promise<number> {
  const start = performance.now();
  await exec('dd', ['if=/dev/zero', `of=${mountPoint}/written-by-test`, 'bs=4k', 'count=1', 'conv=fsync'], {
    timeoutMs,
  });
  return performance.now() - start;
}

export interface Untouched {
  /** Devices that no process of ours may hold open. */
  readonly devices?: readonly string[];
  /** Mounted filesystems that have to accept writes. */
  readonly mountPoints?: readonly string[];
}

/**
 * Asserts that no job has left anything: no descriptors on the devices, nothing frozen, no record of a
 * freeze, no fingerprints, and no processes of the daemon. One process is allowed: the reader of device
 * content, which the daemon keeps for a minute.
 */
export async function assertNothingLeft(daemon: TestDaemon, expected: Untouched = {}): Promise<void> {
  await waitFor(
    `the daemon has no children any more`,
    30_000,
    () => jobChildrenOf(daemon.pid).length === 0,
  ).catch((error: unknown) => {
    const left = jobChildrenOf(daemon.pid).map(commandOf);
    throw new Error(`still running: ${left.join('; ')}`, { cause: error });
  });
  const open = openFiles(daemon.pid);
  for (const device of expected.devices ?? [])
    assert.ok(!open.includes(device), `${device} is still open in dattod`);
  for (const mountPoint of expected.mountPoints ?? []) await writeThrough(mountPoint, 5000);
  assert.deepEqual(filesIn(daemon.runDirectory), []);
  assert.deepEqual(filesIn(join(daemon.stateDirectory, 'fingerprints')), []);
}

function jobChildrenOf(pid: number): number[] {
  return childrenOf(pid).filter((child) => !/probe-main\.[jt]s/.test(commandOf(child)));
}

/** Returns the command line with spaces between the arguments; empty if the process has ended. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ');
  } catch {
    return '';
  }
}

export function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((child) => {
      try {
        const stat = readFileSync(`/proc/${child}/stat`, 'utf8');
        const [state, parent] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
        return Number(parent) === pid && state !== 'Z';
      } catch {
        return false;
      }
    });
}

function openFiles(pid: number): string[] {
  return readdirSync(`/proc/${pid}/fd`).flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/${pid}/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}

function filesIn(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory) : [];
}
