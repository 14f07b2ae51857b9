/**
 * Measures how long incrementals freeze a filesystem under load. One target takes 10 MB/s, the other has no limit. The
 * length of the freeze must not depend on the target.
 *
 *     scripts/node bench/freeze-window.ts [--jobs 50] [--filesystem ext4] [--load 1m] [--pause 50] [--directory DIR]
 *
 * Needs root, fio, nbdkit, and a kernel on which eBPF tracking works. The device lies in DIRECTORY (default /dev/shm).
 * Each job is an incremental while two writers run. fio makes random writes of 4 to 64 KiB to two files, at LOAD bytes
 * per second each, with an fsync after every eighth. The other writer, test/helpers/churn.ts, writes 128 KiB on
 * average in each round and then pauses for PAUSE milliseconds.
 *
 * Together they must write less than the slow target takes. If a device is changed faster than its target takes the
 * data, its freeze has to be longer. Copy the table and the description of the machine to docs/benchmarks.md by hand.
 */
import { cpus } from 'node:os';
import { join } from 'node:path';
import { truncateSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { MiB, parseBytes } from '../src/base/bytes.ts';
import { backUp, daemonFor, scratchFor } from '../test/helpers/backup.ts';
import { atEnd } from '../test/helpers/cleanup.ts';
import { fillWithFiles } from '../test/helpers/files.ts';
import { makeLoop } from '../test/helpers/loop.ts';
import { startNbdkit } from '../test/helpers/nbdkit.ts';
import { startChurn, startFio } from '../test/helpers/writers.ts';

const { values } = parseArgs({
  options: {
    jobs: { type: 'string', default: '50' },
    filesystem: { type: 'string', default: 'ext4' },
    size: { type: 'string', default: '512M' },
    load: { type: 'string', default: '1m' },
    pause: { type: 'string', default: '50' },
    directory: { type: 'string', default: '/dev/shm' },
  },
});
const jobs = Number(values.jobs);
const size = parseBytes(values.size, '--size');

console.log(
  `${cpus().length} processors: ${cpus()[0]?.model.trim() ?? '?'}; ${values.filesystem}, ${jobs} incrementals each\n`,
);
console.log('| target | frozen p50 ms | p99 ms | longest ms | passes | sent MiB per job | job p50 s |');
console.log('| --- | --- | --- | --- | --- | --- | --- |');
for (const [title, filter, rate] of [
  ['10 MB/s', ['--filter=rate'], ['rate=80M']],
  ['not limited', [], []],
] as const)
  console.log(await series(title, [...filter, 'file'], rate));

async function series(title: string, plugin: readonly string[], rate: readonly string[]): Promise<string> {
  const own: (() => Promise<void>)[] = [];
  const t = { after: (hook: () => Promise<void>) => void own.push(hook) };
  try {
    const daemon = await daemonFor(t, { tracking: true });
    const disk = await makeLoop(t, {
      ...{ size, filesystem: values.filesystem, mount: true },
      directory: values.directory,
    });
    const mountPoint = disk.mountPoint!;
    await fillWithFiles(mountPoint, 64 * MiB);
    const image = join(scratchFor(t, { memory: true }), 'image');
    writeFileSync(image, '');
    truncateSync(image, size);
    const server = await startNbdkit([...plugin, image, ...rate]);
    atEnd(t, () => server.stop());
    const args = ['--device', mountPoint, '--target', server.uri];
    await backUp(daemon, args);
    const writers = [
      await startFio(t, mountPoint, { fileSize: '16m', rate: values.load, seconds: 24 * 3600 }),
      await startChurn(t, mountPoint, Number(values.pause)),
    ];
    const frozen: number[] = [];
    const took: number[] = [];
    let passes = 0;
    let sent = 0;
    for (let job = 0; job < jobs; job++) {
      const start = performance.now();
      const { status } = await backUp(daemon, args, '--incremental');
      took.push(performance.now() - start);
      const [device] = status.devices;
      if (status.state !== 'SUCCEEDED' || device?.kind !== 'incremental')
        throw new Error(`job ${job}: ${JSON.stringify(status)}`);
      frozen.push(device.freeze_ms ?? NaN);
      passes += device.pass;
      sent += device.bytes_sent;
      for (const writer of writers) writer.assertRunning();
    }
    const cells = [
      title,
      quantile(frozen, 0.5).toFixed(1),
      quantile(frozen, 0.99).toFixed(1),
      Math.max(...frozen).toFixed(1),
      (passes / jobs).toFixed(1),
      (sent / jobs / MiB).toFixed(1),
      (quantile(took, 0.5) / 1000).toFixed(2),
    ];
    return `| ${cells.join(' | ')} |`;
  } finally {
    for (const hook of own.reverse()) await hook();
  }
}

function quantile(samples: readonly number[], q: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] ?? NaN;
}
