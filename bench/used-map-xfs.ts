/**
 * Measures the time and memory to read the allocation map of 1 TiB of XFS whose metadata is cached.
 *
 *     scripts/node bench/used-map-xfs.ts
 *
 * Makes sparse images on loop devices: one nearly empty, one whose free space is in many pieces, and one with many
 * small groups. Needs root and xfsprogs.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GiB, MiB, TiB } from '../src/base/bytes.ts';
import { openDeviceSource } from '../src/block/device-source.ts';
import { readXfsUsedMap } from '../src/filesystems/xfs/xfs.ts';
import { exec } from '../test/helpers/exec.ts';
import { attachLoop, detachLoop, mountDevice, unmount } from '../test/helpers/loop.ts';

const runs = 5;

/** Each case: its name, the size of the image at mkfs, and the preparation before the map is read. */
const cases: readonly (readonly [
  string,
  number,
  (device: string, image: string, mnt: string) => Promise<void>,
])[] = [
  ['1 TiB, empty', TiB, () => Promise.resolve()],
  [
    '1 TiB, free space in 400000 pieces',
    TiB,
    async (device, _image, mnt) => {
      await mountDevice(device, mnt);
      try {
        // Each group gets one file of 800 MiB. Every second block of the file is punched out.
        for (let group = 0; group < 4; group++) {
          await mkdir(join(mnt, `d${group}`));
          const commands = [`falloc 0 ${200_000 * 4096}`];
          for (let i = 0; i < 100_000; i++) commands.push(`fpunch ${i * 8192} 4096`);
          const input = `${commands.join('\n')}\n`;
          await exec('xfs_io', ['-f', join(mnt, `d${group}`, 'f')], { input, timeoutMs: 300_000 });
        }
      } finally {
        await unmount(mnt);
      }
    },
  ],
  [
    '1 TiB grown from 1 GiB: 4096 groups',
    GiB,
    async (device, image, mnt) => {
      await truncate(image, TiB);
      await exec('losetup', ['--set-capacity', device]);
      await mountDevice(device, mnt);
      try {
        await exec('xfs_growfs', ['-d', mnt], { timeoutMs: 300_000 });
      } finally {
        await unmount(mnt);
      }
    },
  ],
];

const [, script, measured] = process.argv;
if (measured === undefined) await makeAndMeasure();
else console.log(await measure(measured));

async function makeAndMeasure(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'dattod-bench-'));
  try {
    for (const [name, size, prepare] of cases) {
      const image = join(directory, randomBytes(4).toString('hex'));
      await (await open(image, 'wx')).close();
      await truncate(image, size);
      const device = await attachLoop(image);
      try {
        await exec('mkfs.xfs', ['-q', '-K', device]);
        await prepare(device, image, join(directory, 'mnt'));
        // Runs in a separate process, so that the peak memory is that of the reader alone.
        const { stdout } = await exec(process.execPath, [script!, device]);
        console.log(`${name}: ${stdout.trim()}`);
      } finally {
        await detachLoop(device);
        await rm(image);
      }
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function measure(device: string): Promise<string> {
  const source = await openDeviceSource(device);
  const times: number[] = [];
  let extents = 0;
  for (let run = 0; run < runs; run++) {
    const start = performance.now();
    const map = await readXfsUsedMap(source.readAt.bind(source), source.size);
    extents = 0;
    for await (const batch of map.extents) extents += batch.length;
    times.push(performance.now() - start);
    if (map.everything) throw new Error(map.warnings.join());
  }
  await source.close();
  times.sort((a, b) => a - b);
  const [fastest, median, slowest] = [times[0], times[runs >> 1], times.at(-1)].map((t) => t!.toFixed(0));
  const memory = Math.round(process.resourceUsage().maxRSS / (MiB / 1024));
  return `${extents} extents, ${median} ms (${fastest} to ${slowest}), peak memory ${memory} MiB`;
}
