/**
 * Measures how much eBPF tracking slows down writers. fio runs with and without tracking, in turn, in one session.
 *
 *     scripts/node bench/tracking-cost.ts [--rounds 7] [--seconds 6] [--directory DIR]
 *
 * Needs root, fio, and a kernel on which eBPF tracking works. The device is a loop device over a file in DIRECTORY
 * (default /dev/shm), so that no slow disk hides the cost in processor time. Direct: 4 KiB random writes to the bare
 * device, 16 at a time. Buffered: 4 KiB random writes to a file on ext4, an fsync after each. A ratio compares two runs
 * that followed each other. Copy the table and the description of the machine to docs/benchmarks.md by hand.
 */
import { cpus, loadavg } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MiB } from '../src/base/bytes.ts';
import { EbpfTracker } from '../src/tracking/ebpf/tracker.ts';
import { newGeneration } from '../src/tracking/generation.ts';
import { atEnd } from '../test/helpers/cleanup.ts';
import { exec } from '../test/helpers/exec.ts';
import { makeLoop } from '../test/helpers/loop.ts';
import { describeDevice } from '../test/vm/guest.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '7' },
    seconds: { type: 'string', default: '6' },
    directory: { type: 'string', default: '/dev/shm' },
  },
});

interface Measured {
  /** Writes per second. */
  readonly writes: number;
  /** Latency of an fsync, or of a write if there are no fsyncs, microseconds. */
  readonly p99: number;
}

interface FioLatency {
  readonly percentile?: Readonly<Record<string, number>>;
}
interface FioReport {
  readonly jobs: readonly {
    readonly write: { readonly iops: number; readonly clat_ns: FioLatency };
    readonly sync: { readonly lat_ns: FioLatency };
  }[];
}

const hooks: (() => Promise<void>)[] = [];
const t = { after: (hook: () => Promise<void>) => void hooks.push(hook) };
try {
  console.log(
    `${cpus().length} processors: ${cpus()[0]?.model.trim() ?? '?'}; load before: ${loadavg()[0]?.toFixed(1) ?? '?'}\n`,
  );
  console.log(
    '| load | writes/s without | with | ratio | p99 µs without | with | ratio |\n| --- | --- | --- | --- | --- | --- | --- |',
  );
  const bare = await makeLoop(t, { size: 256 * MiB, directory: values.directory });
  await series('direct, 16 under way', bare.device, () =>
    fio([`--filename=${bare.device}`, '--direct=1', '--ioengine=libaio', '--iodepth=16']),
  );
  const mounted = await makeLoop(t, {
    ...{ size: 256 * MiB, filesystem: 'ext4', mount: true },
    directory: values.directory,
  });
  await series('buffered, fsync after each', mounted.device, () =>
    fio([`--filename=${join(mounted.mountPoint!, 'file')}`, '--ioengine=psync', '--fsync=1']),
  );
} finally {
  for (const hook of hooks.reverse()) await hook();
}

async function series(title: string, path: string, run: () => Promise<Measured>): Promise<void> {
  const device = describeDevice(path);
  const tracker = await EbpfTracker.open({ pinDirectory: `/sys/fs/bpf/bench-${process.pid}` });
  atEnd(t, () => tracker.stop());
  // The first write to a page of the file behind the device costs more than the others.
  await run();
  const without: Measured[] = [];
  const tracked: Measured[] = [];
  for (let round = 0; round < Number(values.rounds); round++) {
    without.push(await run());
    await tracker.track(device);
    (await tracker.take(device)).commit(newGeneration());
    tracked.push(await run());
    // The tracing programs are removed with the last tracked device.
    await tracker.untrack(device);
  }
  await tracker.stop();
  const cells = (['writes', 'p99'] as const).flatMap((what) => {
    const ratios = without.map((one, round) => tracked[round]![what] / one[what]);
    return [
      median(without.map((one) => one[what])).toFixed(0),
      median(tracked.map((one) => one[what])).toFixed(0),
      `${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
    ];
  });
  console.log(`| ${[title, ...cells].join(' | ')} |`);
}

async function fio(options: readonly string[]): Promise<Measured> {
  const { stdout } = await exec('fio', [
    ...['--name=cost', '--rw=randwrite', '--bs=4k', '--size=128m', '--output-format=json', ...options],
    ...['--time_based', `--runtime=${values.seconds}`, '--randrepeat=0'],
  ]);
  const [job] = (JSON.parse(stdout) as FioReport).jobs;
  const p99 = (latency: FioLatency | undefined): number | undefined => latency?.percentile?.['99.000000'];
  return {
    writes: job!.write.iops,
    p99: (p99(job!.sync.lat_ns) || (p99(job!.write.clat_ns) ?? NaN)) / 1000,
  };
}

function median(samples: readonly number[]): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
