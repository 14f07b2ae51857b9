/**
 * Measures how much a backup slows down other work of the machine. The other work is 4 KiB random direct writes at a
 * fixed rate; their latency and throughput are measured. Compared are: no agent, an idle agent, an agent that tracks,
 * and an agent that copies at each `--impact`.
 *
 *     scripts/node bench/impact.ts [--rounds 5] [--seconds 8] [--rate 8M] [--size 512M] [--directory DIR]
 *     scripts/node bench/impact.ts --disk slow --rate 1M [--read-ms 4] [--write-ms 1] [--size 256M]
 *
 * Needs root, fio, nbdkit, and a kernel on which eBPF tracking works; the slow disk also needs nbdfuse. The device is a
 * loop device with ext4, half full. With `--disk memory` it lies over a file in DIRECTORY (default /dev/shm), so the
 * agent and fio compete only for the processors. With `--disk slow` it lies over a disk that serves one request after
 * the other, as a disk with one head does. Each read takes `--read-ms` and each write `--write-ms` (nbdkit's filters,
 * through FUSE).
 *
 * The target accepts all data and stores none, so that only reading is measured. Full backups follow one another as
 * long as fio writes; their freezes are included. A ratio compares a run with the run without the agent in the same
 * round. Copy the table and the description of the machine to docs/benchmarks.md by hand.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync } from 'node:fs';
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MiB, parseBytes } from '../src/base/bytes.ts';
import type { JobStatus } from '../src/api/job-status.ts';
import {
  backUpWell,
  daemonFor,
  jobStatus,
  scratchFor,
  startJob,
  untilEnded,
} from '../test/helpers/backup.ts';
import { type EndingTest, atEnd } from '../test/helpers/cleanup.ts';
import { dattocli, waitFor } from '../test/helpers/daemon.ts';
import { exec } from '../test/helpers/exec.ts';
import { fillWithFiles } from '../test/helpers/files.ts';
import {
  attachLoop,
  detachLoop,
  makeFilesystem,
  makeLoop,
  mountDevice,
  unmount,
} from '../test/helpers/loop.ts';
import { startNbdkit } from '../test/helpers/nbdkit.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '8' },
    rate: { type: 'string', default: '8M' },
    disk: { type: 'string', default: 'memory' },
    size: { type: 'string', default: '512M' },
    'read-ms': { type: 'string', default: '4' },
    'write-ms': { type: 'string', default: '1' },
    directory: { type: 'string', default: '/dev/shm' },
  },
});
const size = parseBytes(values.size, '--size');
const rate = parseBytes(values.rate, '--rate');
const block = 4096;

const modes = ['none', 'idle', 'tracking', 'low', 'normal', 'high'] as const;
type Mode = (typeof modes)[number];

interface Measured {
  /** Latency of a write, microseconds. */
  readonly p50: number;
  readonly p99: number;
  /** Writes per second. */
  readonly writes: number;
  /** Bytes per second that backups read. */
  readonly copied: number;
}

interface FioReport {
  readonly jobs: readonly {
    readonly write: {
      readonly iops: number;
      readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> };
    };
  }[];
}

const own: (() => Promise<void>)[] = [];
const t: EndingTest = { after: (hook: () => Promise<void>) => void own.push(hook) };
try {
  await measure();
} finally {
  for (const hook of own.reverse()) await hook();
}

async function measure(): Promise<void> {
  console.log(
    `${cpus().length} processors: ${cpus()[0]?.model.trim() ?? '?'}; load before: ${loadavg()[0]?.toFixed(1) ?? '?'}; disk: ` +
      `${values.disk}, ${size / MiB} MiB; ${rate / block} writes/s asked for\n`,
  );
  const disk = await makeDisk();
  await fillWithFiles(disk.mountPoint, size / 2);
  await fio(disk.mountPoint, 1);
  const results = new Map<Mode, Measured[]>(modes.map((mode) => [mode, []]));
  for (let round = 0; round < Number(values.rounds); round++)
    for (const mode of modes) results.get(mode)?.push(await measureOne(mode, disk));
  console.log('| agent | p50 µs | ratio | p99 µs | ratio | writes/s | ratio | copied MiB/s |');
  console.log('| --- | --- | --- | --- | --- | --- | --- | --- |');
  const without = results.get('none')!;
  for (const [mode, measured] of results) {
    const cells = (['p50', 'p99', 'writes'] as const).flatMap((what) => {
      const ratios = measured.map((one, round) => one[what] / without[round]![what]);
      return [
        median(measured.map((one) => one[what])).toFixed(0),
        `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
      ];
    });
    const copied = median(measured.map((one) => one.copied)) / MiB;
    console.log(`| ${[mode, ...cells, copied === 0 ? '–' : copied.toFixed(0)].join(' | ')} |`);
  }
  console.log(`\nload after: ${loadavg()[0]?.toFixed(1) ?? '?'}`);
}

interface Disk {
  readonly device: string;
  readonly mountPoint: string;
}

async function makeDisk(): Promise<Disk> {
  if (values.disk === 'memory') {
    const { device, mountPoint } = await makeLoop(t, {
      ...{ size, filesystem: 'ext4', mount: true },
      directory: values.directory,
    });
    return { device, mountPoint: mountPoint! };
  }
  const directory = scratchFor(t, { memory: true });
  const server = await startNbdkit([
    ...['--filter=noparallel', '--filter=delay', 'memory', String(size)],
    ...['serialize=requests', `rdelay=${values['read-ms']}ms`, `wdelay=${values['write-ms']}ms`],
  ]);
  atEnd(t, () => server.stop());
  const [shown, mountPoint] = [join(directory, 'shown'), join(directory, 'mnt')];
  mkdirSync(shown);
  const fuse = spawn('nbdfuse', [join(shown, 'disk'), server.uri], { stdio: 'ignore' });
  const ended = once(fuse, 'exit');
  atEnd(t, async () => {
    await exec('fusermount3', ['-u', shown]);
    await ended;
  });
  await waitFor(
    'nbdfuse has mounted',
    10_000,
    async () => (await exec('mountpoint', ['-q', shown], { allow: [1, 32] })).code === 0,
  );
  const device = await attachLoop(join(shown, 'disk'));
  atEnd(t, () => detachLoop(device));
  // Without direct I/O, the page cache of the file would serve the requests instead of the slow disk.
  await exec('losetup', ['--direct-io=on', device]);
  await makeFilesystem(device, 'ext4');
  await mountDevice(device, mountPoint);
  atEnd(t, () => unmount(mountPoint));
  return { device, mountPoint };
}

async function measureOne(mode: Mode, { device, mountPoint }: Disk): Promise<Measured> {
  const here: (() => Promise<void>)[] = [];
  const ending: EndingTest = { after: (hook: () => Promise<void>) => void here.push(hook) };
  try {
    if (mode === 'none') return await fio(mountPoint);
    const daemon = await daemonFor(ending, { tracking: mode !== 'idle' });
    if (mode === 'idle') return await fio(mountPoint);
    const target = await startNbdkit(['null', String(size)]);
    atEnd(ending, () => target.stop());
    const pair = ['--device', device, '--target', target.uri, '--verify', 'none'];
    await backUpWell(daemon, [...pair, '--impact', 'high']);
    if (mode === 'tracking') return await fio(mountPoint);
    const start = performance.now();
    const run = { over: false };
    const isOver = (): boolean => run.over;
    let read = 0;
    const copying = (async () => {
      while (!isOver()) {
        const job = await startJob(daemon, [...pair, '--impact', mode]);
        const stop = setInterval(() => void (isOver() && dattocli(['stopbackup', job], daemon)), 200);
        const status: JobStatus = await untilEnded(daemon, job, 600_000).finally(() => clearInterval(stop));
        if (status.error !== null && !isOver()) throw new Error(status.error.message);
        read += (await jobStatus(daemon, job)).devices[0]?.bytes_transferred ?? 0;
      }
    })();
    const measured = await fio(mountPoint);
    run.over = true;
    await copying;
    return { ...measured, copied: read / ((performance.now() - start) / 1000) };
  } finally {
    for (const hook of here.reverse()) await hook();
  }
}

async function fio(mountPoint: string, seconds = Number(values.seconds)): Promise<Measured> {
  const { stdout } = await exec('fio', [
    ...[
      '--name=host',
      `--filename=${join(mountPoint, 'fio')}`,
      '--rw=randwrite',
      `--bs=${block}`,
      '--size=64m',
    ],
    ...['--direct=1', '--ioengine=psync', '--thread', '--numjobs=1', `--rate=${rate}`, '--overwrite=1'],
    ...['--time_based', `--runtime=${seconds}`, '--randrepeat=0', '--output-format=json'],
  ]);
  const [job] = (JSON.parse(stdout) as FioReport).jobs;
  const percentile = (name: string): number => (job!.write.clat_ns.percentile?.[name] ?? NaN) / 1000;
  return { p50: percentile('50.000000'), p99: percentile('99.000000'), writes: job!.write.iops, copied: 0 };
}

function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
