/**
 * Measures backups into a vault, NBD and files. Random blocks of 4 KiB are written to the devices all the time.
 *
 *     scripts/node bench/busy.ts [--rate 50M] [--devices 3] [--file 256M] [--into vault,nbd,file] [--directory DIR]
 *
 * Needs root, fio, nbdkit, and a kernel on which eBPF tracking works. The devices and targets lie in DIRECTORY (default
 * /dev/shm). RATE is the sum over all devices. Each device has one file of FILE bytes; fio writes to it with direct
 * I/O. Each job has the default options, so it fails if a freeze is too long. Copy the table and the description of the
 * machine to docs/benchmarks.md by hand.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { truncateSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MiB, parseBytes } from '../src/base/bytes.ts';
import type { JobStatus } from '../src/api/job-status.ts';
import { daemonFor, jobStatus, scratchFor, startJob, untilEnded } from '../test/helpers/backup.ts';
import { type EndingTest, atEnd } from '../test/helpers/cleanup.ts';
import type { TestDaemon } from '../test/helpers/daemon.ts';
import { fillWithFiles } from '../test/helpers/files.ts';
import { makeLoop } from '../test/helpers/loop.ts';
import { startNbdkit } from '../test/helpers/nbdkit.ts';
import { vaultFor } from '../test/helpers/vault.ts';

const { values } = parseArgs({
  options: {
    rate: { type: 'string', default: '50M' },
    devices: { type: 'string', default: '3' },
    file: { type: 'string', default: '256M' },
    into: { type: 'string', default: 'vault,nbd,file' },
    directory: { type: 'string', default: '/dev/shm' },
  },
});
const rate = parseBytes(values.rate, '--rate');
const devices = Number(values.devices);
const file = parseBytes(values.file, '--file');
const size = file + 128 * MiB;
const block = 4096;

const own: (() => Promise<void>)[] = [];
const t: EndingTest = { after: (hook: () => Promise<void>) => void own.push(hook) };
try {
  await measure();
} finally {
  for (const hook of own.reverse()) await hook();
}

async function measure(): Promise<void> {
  const daemon = await daemonFor(t, { tracking: true });
  const disks: string[] = [];
  const writers: Writer[] = [];
  for (let i = 0; i < devices; i++) {
    const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true, directory: values.directory });
    await fillWithFiles(disk.mountPoint!, 16 * MiB);
    disks.push(disk.device);
    writers.push(await startWriter(disk.mountPoint!));
  }
  console.log(
    `${cpus().length} processors: ${cpus()[0]?.model.trim() ?? '?'}; ${devices} devices, each ${size / MiB} MiB with a file of ` +
      `${file / MiB} MiB; ${rate / MiB} MiB/s of random ${block} byte writes in all\n`,
  );
  console.log(
    '| target | kind | result | warnings | passes | frozen ms | sent MiB | job s | written MiB/s |',
  );
  console.log('| --- | --- | --- | --- | --- | --- | --- | --- | --- |');
  for (const into of values.into.split(',')) {
    const targets = await targetsOf(into, daemon);
    for (const kind of ['--full', '--incremental', '--incremental'] as const) {
      const before = writers.reduce((sum, writer) => sum + writer.written(), 0);
      const start = performance.now();
      const pairs = disks.flatMap((device, i) => ['--device', device, '--target', targets[i]!]);
      const job = await startJob(daemon, pairs, kind);
      await untilEnded(daemon, job, 600_000);
      const seconds = (performance.now() - start) / 1000;
      const written = writers.reduce((sum, writer) => sum + writer.written(), 0) - before;
      const status = await jobStatus(daemon, job);
      console.log(row(into, kind, status, seconds, written));
      if (status.error !== null) console.error(status.error.message);
    }
  }
}

function row(into: string, kind: string, status: JobStatus, seconds: number, written: number): string {
  const each = (pick: (device: JobStatus['devices'][number]) => string): string =>
    status.devices.map(pick).join(' ');
  const sent = status.devices.reduce((sum, { bytes_sent }) => sum + bytes_sent, 0);
  const cells = [
    into,
    kind.slice(2),
    status.error === null ? status.state : status.error.code,
    status.warnings.map(({ code }) => code).join(' ') || '–',
    each(({ pass }) => String(pass)),
    each(({ freeze_ms }) => (freeze_ms ?? NaN).toFixed(0)),
    (sent / MiB).toFixed(0),
    seconds.toFixed(1),
    (written / MiB / seconds).toFixed(1),
  ];
  return `| ${cells.join(' | ')} |`;
}

async function targetsOf(into: string, daemon: TestDaemon): Promise<string[]> {
  if (into === 'vault') {
    const { target } = await vaultFor(t, daemon.stateDirectory);
    return Array.from({ length: devices }, () => target);
  }
  const scratch = scratchFor(t, { memory: values.directory === '/dev/shm' });
  const images = Array.from({ length: devices }, (_, i) => join(scratch, `image-${i}`));
  if (into === 'file') return images;
  const uris: string[] = [];
  for (const image of images) {
    writeFileSync(image, '');
    truncateSync(image, size);
    const server = await startNbdkit(['file', image]);
    atEnd(t, () => server.stop());
    uris.push(server.uri);
  }
  return uris;
}

interface Writer {
  /** Bytes written so far. */
  written(): number;
}

/** Runs fio on one file, at its share of the rate, until the measurement ends. */
async function startWriter(mountPoint: string): Promise<Writer> {
  const child = spawn(
    'fio',
    [
      ...[
        '--name=busy',
        `--directory=${mountPoint}`,
        '--rw=randwrite',
        `--bs=${block}`,
        '--direct=1',
        '--thread',
      ],
      ...[`--size=${file}`, '--ioengine=psync', `--rate=${Math.floor(rate / devices)}`, '--time_based'],
      ...[
        '--runtime=86400',
        '--refill_buffers',
        '--overwrite=1',
        '--status-interval=1',
        '--output-format=terse',
      ],
      ...['--terse-version=3'],
    ],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  const ended = once(child, 'close');
  atEnd(t, async () => {
    child.kill('SIGTERM');
    await ended;
  });
  let written = 0;
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (more: string) => {
    text += more;
    const lines = text.split('\n');
    text = lines.pop() ?? '';
    // Field 47 of a terse line is the number of KiB written.
    for (const line of lines) written = Math.max(written, Number(line.split(';')[46] ?? 0) * 1024);
  });
  await Promise.race([once(child.stdout, 'data'), ended]);
  if (child.exitCode !== null) throw new Error(`fio ended with ${child.exitCode}`);
  return { written: () => written };
}
