/**
 * Measures how long it takes to mount a recovery point of a large device and to unmount it. A mount copies no data, so
 * the time must not depend on the size.
 *
 *     scripts/node bench/mount.ts [--size 100G] [--rounds 5] [--filesystem ext4] [--method nbdfuse] [--directory DIR]
 *
 * Needs root, and nbdfuse or qemu-storage-daemon. The device is a sparse file of SIZE with a filesystem and a few
 * files. It is stored in a vault in DIRECTORY (default: the system's directory for temporary files). Each round mounts,
 * lists the root, and unmounts. Copy the table and the description of the machine to docs/benchmarks.md by hand.
 */
import { mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { cpus, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { GiB, formatBytes, MiB, parseBytes } from '../src/base/bytes.ts';
import { mountImage, unmountImage } from '../src/restore/mount/mount.ts';
import type { AttachMethod } from '../src/restore/mount/mount-record.ts';
import { fillWithFiles } from '../test/helpers/files.ts';
import { attachLoop, detachLoop, makeFilesystem, mountDevice, unmount } from '../test/helpers/loop.ts';
import { storeImage } from '../test/helpers/restore-point.ts';

const { values } = parseArgs({
  options: {
    size: { type: 'string', default: `${100 * GiB}` },
    rounds: { type: 'string', default: '5' },
    filesystem: { type: 'string', default: 'ext4' },
    method: { type: 'string' },
    directory: { type: 'string', default: tmpdir() },
  },
});
const size = parseBytes(values.size, '--size');
const scratch = mkdtempSync(join(values.directory, 'bench-mount-'));
try {
  const image = join(scratch, 'image');
  writeFileSync(image, '');
  truncateSync(image, size);
  const device = await attachLoop(image);
  try {
    await makeFilesystem(device, values.filesystem);
    await mountDevice(device, join(scratch, 'source'));
    await fillWithFiles(join(scratch, 'source'), 64 * MiB);
    await unmount(join(scratch, 'source'));
  } finally {
    await detachLoop(device);
  }
  const spec = await storeImage(join(scratch, 'store'), image);
  console.log(
    `${cpus().length} processors: ${cpus()[0]?.model.trim() ?? '?'}; ${values.filesystem} of ${formatBytes(size)}\n`,
  );
  console.log('| mounted after s (each round) | taken down after s |');
  console.log('| --- | --- |');
  const mounted: string[] = [];
  const removed: string[] = [];
  const runDirectory = join(scratch, 'run');
  for (let round = 0; round < Number(values.rounds); round++) {
    const directory = join(scratch, `mounted-${round}`);
    const start = performance.now();
    await mountImage({
      image: spec,
      subject: { point: '', device: image },
      directory,
      sectorSize: 512,
      runDirectory,
      method: values.method as AttachMethod | undefined,
    });
    if (readdirSync(directory).length < 5) throw new Error('the point is not what was stored');
    mounted.push(((performance.now() - start) / 1000).toFixed(2));
    const middle = performance.now();
    await unmountImage(runDirectory, directory);
    removed.push(((performance.now() - middle) / 1000).toFixed(2));
  }
  console.log(`| ${mounted.join(' ')} | ${removed.join(' ')} |`);
} finally {
  rmSync(scratch, { recursive: true });
}
