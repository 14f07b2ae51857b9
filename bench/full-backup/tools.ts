/**
 * The tools that are timed: our own backup with the built programs, and other tools that people use for the same job.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { exec } from '../../test/helpers/exec.ts';
import { daemonPaths, isHealthy } from '../../test/helpers/daemon.ts';
import { waitFor } from '../../test/helpers/nbd-process.ts';

export interface Measurement {
  /** Wall-clock time. */
  readonly seconds: number;
  /** User and system time of the tool, without that of the server. */
  readonly cpuSeconds: number;
  /** Peak resident memory of the largest process, in MiB. */
  readonly peakMiB: number;
}

export interface Tool {
  readonly name: string;
  run(device: string, uri: string): Promise<Measurement>;
}

const build = fileURLToPath(new URL('../../build/', import.meta.url));

/** Times a shell command and its children with GNU time. */
async function timed(command: string): Promise<Measurement> {
  const { stderr } = await exec(
    '/usr/bin/time',
    ['-f', '\n%e %U %S %M', 'bash', '-o', 'pipefail', '-c', command],
    {
      timeoutMs: 600_000,
    },
  );
  const [seconds = 0, user = 0, system = 0, peak = 0] = stderr
    .trim()
    .split('\n')
    .at(-1)!
    .split(' ')
    .map(Number);
  return { seconds, cpuSeconds: user + system, peakMiB: peak / 1024 };
}

function peer(name: string, command: (device: string, uri: string) => string): Tool {
  return { name, run: (device, uri) => timed(command(device, uri)) };
}

/** The first tool is ours, because the ratios compare with the first. */
export const tools: readonly Tool[] = [
  { name: 'dattod', run: (device, uri) => ours(device, uri, '') },
  { name: 'dattod, no fingerprints', run: (device, uri) => ours(device, uri, '--no-fingerprints') },
  peer('nbdcopy', (device, uri) => `nbdcopy --flush ${device} '${uri}'`),
  peer('qemu-img convert', (device, uri) => `qemu-img convert -n -f raw -O raw ${device} '${uri}'`),
  peer('dd | nbdcopy', (device, uri) => `dd if=${device} bs=1M status=none | nbdcopy --flush - '${uri}'`),
  peer(
    'partclone | nbdcopy',
    (device, uri) =>
      `partclone.extfs -c -q -L /dev/null -s ${device} -o - 2>/dev/null | nbdcopy --flush - '${uri}'`,
  ),
];

/**
 * Runs our own backup. Each run has a new daemon, so that its peak memory is that of one backup. No tracker is used,
 * because its programs are loaded once after a boot and not for each backup.
 */
async function ours(device: string, uri: string, options: string): Promise<Measurement> {
  const paths = daemonPaths();
  const daemon = spawn(join(build, 'dattod'), ['--foreground', ...paths.arguments], { stdio: 'ignore' });
  const ended = once(daemon, 'exit');
  try {
    await waitFor(() => isHealthy(paths.socket), 'dattod answers');
    const before = cpuSeconds(daemon.pid!);
    const command = await timed(
      `${join(build, 'dattocli')} --socket ${paths.socket} startbackup --full --wait --tracker none ${options} --device ${device} --target '${uri}' > ${paths.directory}/out`,
    );
    const status = await readFile(`/proc/${daemon.pid!}/status`, 'utf8');
    return {
      seconds: command.seconds,
      cpuSeconds: command.cpuSeconds + cpuSeconds(daemon.pid!) - before,
      peakMiB: Number(/VmHWM:\s+(\d+)/.exec(status)?.[1]) / 1024,
    };
  } finally {
    daemon.kill('SIGTERM');
    await ended;
    await exec('rm', ['-rf', paths.directory, paths.pinDirectory]);
  }
}

/** Returns the user and system time of a process and its threads so far. Clock ticks are 10 ms on Linux. */
function cpuSeconds(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ');
  return (Number(fields[11]) + Number(fields[12])) / 100;
}
