/**
 * Measures the time to read the allocation map of a large ext4 filesystem whose metadata is in the page cache.
 *
 *     scripts/node bench/used-map.ts [TIB]
 *
 * Makes a sparse image of TIB TiB (default 1), of which a few hundred MiB are real. Fills and fragments the image so
 * that every group's bitmap is on disk, reads the map five times, and removes the image. Needs root and e2fsprogs.
 */
import { mkdir, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Bitmap } from '../src/base/bitmap.ts';
import { formatBytes, KiB, TiB } from '../src/base/bytes.ts';
import { markUsed } from '../src/filesystems/mark-used.ts';
import { readVerifiedUsedMap } from '../src/filesystems/read-verified-used-map.ts';
import { exec } from '../test/helpers/exec.ts';
import { attachLoop, detachLoop, mountDevice, unmount } from '../test/helpers/loop.ts';
import { openImage } from '../test/helpers/used-extents.ts';

const size = Number(process.argv[2] ?? 1) * TiB;
const runs = 5;
const directory = await mkdtemp(join(tmpdir(), 'dattod-bench-'));
try {
  for (const [name, features] of [
    ['as mke2fs makes it', []],
    ['without flex_bg', ['-O', '^flex_bg']],
  ] as const)
    await measure(name, await makeImage(features));
} finally {
  await rm(directory, { recursive: true, force: true });
}

/** Makes an image that is nine tenths full and fragmented, and in which every group was touched. */
async function makeImage(features: readonly string[]): Promise<string> {
  const image = join(directory, 'image');
  await rm(image, { force: true });
  await writeFile(image, '');
  await truncate(image, size);
  const options = ['-E', 'lazy_itable_init=1,nodiscard', '-i', '1048576', ...features];
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', ...options, image]);
  const device = await attachLoop(image);
  const mountPoint = join(directory, 'mnt');
  await mkdir(mountPoint, { recursive: true });
  // Without "discard", so that deleted blocks leave bitmaps behind. Without the thread that initialises inode tables,
  // because that thread keeps the loop device busy.
  await mountDevice(device, mountPoint, 'noinit_itable');
  try {
    const files = 200;
    for (let i = 0; i < files; i++)
      await exec('fallocate', ['-l', String(Math.floor((size * 0.9) / files)), join(mountPoint, `f${i}`)]);
    for (let i = 0; i < files; i += 4)
      for (let hole = 0; hole < 50; hole++)
        await exec('fallocate', [
          '--punch-hole',
          '-o',
          String(hole * 40 * 1024 * KiB),
          '-l',
          String((1 + (hole % 9)) * 1024 * KiB),
          join(mountPoint, `f${i}`),
        ]);
  } finally {
    await unmount(mountPoint);
    await detachLoop(device);
  }
  return image;
}

async function measure(name: string, image: string): Promise<void> {
  await using file = await openImage(image);
  const times: number[] = [];
  let reads = 0;
  let bytes = 0;
  const readAt = (offset: number, length: number): Promise<Uint8Array> => {
    reads++;
    bytes += length;
    return file.readAt(offset, length);
  };
  let used = 0;
  for (let run = 0; run <= runs; run++) {
    [reads, bytes] = [0, 0];
    const start = performance.now();
    const map = await markUsed(new Bitmap(size, 64 * KiB), readAt, size, 512);
    // The first run fills the page cache.
    if (run > 0) times.push(performance.now() - start);
    if (map.everything) throw new Error(map.warnings.join());
    used = map.usedBytes;
  }
  const verified = performance.now();
  const map = await readVerifiedUsedMap(file.readAt, size, 512);
  let extents = 0;
  for await (const batch of map.extents) extents += batch.length;
  const twice = performance.now() - verified;

  times.sort((a, b) => a - b);
  const cpu = process.resourceUsage();
  console.log(`ext4 of ${formatBytes(size)}, ${name}: ${formatBytes(used)} used in ${extents} extents`);
  console.log(
    `  markUsed ${times.map((ms) => ms.toFixed(0)).join(', ')} ms; ${reads} reads, ${formatBytes(bytes)}`,
  );
  console.log(
    `  readVerifiedUsedMap ${twice.toFixed(0)} ms; peak memory of the process ${formatBytes(cpu.maxRSS * 1024)}`,
  );
}
