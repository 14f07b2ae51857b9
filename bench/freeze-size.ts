/**
 * Measures how the freeze of an incremental depends on the size of the device. The devices are sparse ext4 and XFS with
 * some MiB of changes. For comparison, the time to read the whole allocation map is given; older versions did that in
 * each freeze.
 *
 *     scripts/node bench/freeze-size.ts [--sizes 1,30,90] [--filesystems ext4,xfs] [--jobs 3] [--directory DIR]
 *
 * Sizes are in TiB. Needs root, a kernel on which eBPF tracking works, and a DIRECTORY whose filesystem takes files of
 * that size (default /dev/shm). ext4 of 90 TiB takes 350 MiB of it, and its full backup reads 9 GB. Compare only lines
 * of one run. Copy the table and the description of the machine to docs/benchmarks.md by hand.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { randomBytes } from 'node:crypto';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { MiB, TiB } from '../src/base/bytes.ts';
import { backUp, daemonFor, scratchFor } from '../test/helpers/backup.ts';
import type { EndingTest } from '../test/helpers/cleanup.ts';
import { makeLarge, type MapReading, mapReadings } from '../test/helpers/large-device.ts';

const { values } = parseArgs({
  options: {
    sizes: { type: 'string', default: '1,30,90' },
    filesystems: { type: 'string', default: 'ext4,xfs' },
    jobs: { type: 'string', default: '3' },
    directory: { type: 'string', default: '/dev/shm' },
  },
});

console.log(`${cpus().length} processors: ${cpus()[0]?.model.trim() ?? '?'}\n`);
console.log('| device | groups | whole map ms | map in the freeze ms | groups read in it | frozen ms |');
console.log('| --- | --- | --- | --- | --- | --- |');
for (const filesystem of values.filesystems.split(','))
  for (const size of values.sizes.split(','))
    if (filesystem === 'ext4' || filesystem === 'xfs') await measure(filesystem, Number(size));

async function measure(filesystem: 'ext4' | 'xfs', tebibytes: number): Promise<void> {
  const own: (() => Promise<void>)[] = [];
  const t: EndingTest = { after: (hook: () => Promise<void>) => void own.push(hook) };
  try {
    const daemon = await daemonFor(t, { tracking: true });
    const { device, mountPoint } = await makeLarge(t, filesystem, tebibytes * TiB, values.directory);
    for (let i = 0; i < 40; i++) {
      mkdirSync(join(mountPoint, `d${i}`));
      writeFileSync(join(mountPoint, `d${i}`, 'file'), randomBytes(300_000));
    }
    const args = ['--device', device, '--target', join(scratchFor(t, { memory: true }), 'image')];
    await backUp(daemon, [...args, '--max-freeze', '60s']);
    const frozen: (number | null)[] = [];
    for (let job = 0; job < Number(values.jobs); job++) {
      writeFileSync(join(mountPoint, 'd1', `new${job}`), 'new');
      writeFileSync(join(mountPoint, `d${job}`, 'file'), randomBytes(MiB));
      const { status } = await backUp(daemon, args, '--incremental');
      if (status.state !== 'SUCCEEDED') throw new Error(JSON.stringify(status));
      frozen.push(status.devices[0]!.freeze_ms);
    }
    const readings = mapReadings(daemon, device);
    const whole = readings.filter(({ groups, groupsRead }) => groups === groupsRead);
    // The first freeze belongs to the full backup.
    const inFreeze = readings.filter(({ state }) => state === 'frozen').slice(1);
    const list = (all: readonly MapReading[], of: (one: MapReading) => number): string =>
      all.map((one) => Math.round(of(one))).join(' ');
    console.log(
      `| ${filesystem} ${tebibytes} TiB | ${readings[0]?.groups ?? 0} | ${list(whole, ({ ms }) => ms)} | ` +
        `${list(inFreeze, ({ ms }) => ms)} | ${list(inFreeze, ({ groupsRead }) => groupsRead)} | ${frozen.join(' ')} |`,
    );
  } finally {
    for (const hook of own.reverse()) await hook();
  }
}
