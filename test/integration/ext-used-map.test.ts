/**
 * Proves the used map of ext2/3/4 in every variant that Debian's mke2fs makes. It equals dumpe2fs' free-block
 * lists to the block, and includes every block that partclone calls used. An unfinished journal makes
 * everything used.
 */
import assert from 'node:assert/strict';
import { copyFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB, TiB } from '../../src/base/bytes.ts';
import { Bitmap } from '../../src/base/bitmap.ts';
import { totalLength } from '../../src/base/extents.ts';
import { markUsed } from '../../src/filesystems/mark-used.ts';
import { type ReadUsedMapOptions, readUsedMap } from '../../src/filesystems/read-used-map.ts';
import { exec } from '../helpers/exec.ts';
import { emptyFile, extVariants, fragment, makeExtImage, scratchDirectory } from '../helpers/ext-images.ts';
import { attachLoop, detachLoop, makeLoop, umount } from '../helpers/loop.ts';
import {
  collectExtents,
  dumpe2fsUsed,
  markImage,
  openImage,
  partcloneUsed,
  without,
} from '../helpers/used-extents.ts';
import { atEnd } from '../helpers/cleanup.ts';

const overcounts: string[] = [];
after(() => {
  if (overcounts.length > 0) console.log(`over-count against partclone, bytes:\n${overcounts.join('\n')}`);
});

for (const variant of extVariants)
  test(`ext, ${variant.name}`, async (t) => {
    const image = await makeExtImage(t, await scratchDirectory(t), variant);
    const used = await compare(image);
    if (variant.partclone === false) return;
    const partclone = await partcloneUsed('extfs', image);
    assert.deepEqual(without(partclone, used).slice(0, 5), [], 'used for partclone, free for us');
    overcounts.push(`  ${variant.name}: ${totalLength(without(used, partclone))}`);
  });

/** Compares our map of an image or device with dumpe2fs. Returns the map. */
async function compare(path: string, options: ReadUsedMapOptions = {}) {
  await using image = await openImage(path);
  const map = await readUsedMap(image.readAt, image.size, 512, options);
  assert.deepEqual(map.warnings, []);
  assert.equal(map.everything, false);
  const used = await collectExtents(map.extents, image.size);
  const expected = await dumpe2fsUsed(path, image.size);
  assert.deepEqual(without(expected, used).slice(0, 5), [], 'used for dumpe2fs, free for us');
  assert.deepEqual(without(used, expected).slice(0, 5), [], 'used for us, free for dumpe2fs');
  assert.ok(totalLength(used) < image.size);
  return used;
}

test('ext grown by resize2fs, unmounted and mounted', async (t) => {
  const directory = await scratchDirectory(t);
  const image = await emptyFile(join(directory, 'image'), 700 * MiB);
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '1024', image, '60M']);
  await exec('resize2fs', [image, '300M']);
  await compare(image);

  const device = await attachLoop(image);
  atEnd(t, () => detachLoop(device));
  const mountPoint = join(directory, 'mnt');
  await exec('mkdir', [mountPoint]);
  await exec('mount', [device, mountPoint]);
  atEnd(t, async () => {
    await exec('umount', [mountPoint], { allow: [32] });
  });
  await exec('resize2fs', [device]);
  await umount(mountPoint);
  await compare(image);
});

test('ext with another UUID than its checksum seed, and after tune2fs', async (t) => {
  const image = await makeExtImage(t, await scratchDirectory(t), { name: '', args: ['-t', 'ext4'] });
  // tune2fs requires a check after the mount. Exit code 1 means that e2fsck corrected something.
  await exec('e2fsck', ['-f', '-y', image], { allow: [1] });
  await exec('tune2fs', ['-O', 'metadata_csum_seed', image]);
  await exec('tune2fs', ['-U', '01234567-89ab-cdef-0123-456789abcdef', image]);
  await compare(image);
  await exec('tune2fs', ['-O', '^metadata_csum', image]);
  await compare(image);
});

test('an external journal is named, and itself counts as used completely', async (t) => {
  const directory = await scratchDirectory(t);
  const journal = await emptyFile(join(directory, 'journal'), 16 * MiB);
  await exec('mke2fs', ['-q', '-F', '-O', 'journal_dev', '-b', '4096', journal]);
  const device = await attachLoop(journal);
  atEnd(t, () => detachLoop(device));
  const image = await emptyFile(join(directory, 'image'), 300 * MiB);
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', '-b', '4096', '-J', `device=${device}`, image]);

  const mark = await markImage(image);
  assert.equal(mark.everything, false);
  assert.match(mark.warnings.join(), /journal .* is on another device/);
  const jbd = await markImage(journal);
  assert.equal(jbd.everything, true);
  assert.equal(jbd.filesystem?.type, 'jbd');
  assert.match(jbd.warnings.join(), /external journal of another filesystem/);
});

test('frozen and live', async (t) => {
  for (const filesystem of ['ext4', 'ext2']) {
    const disk = await makeLoop(t, { size: 300 * MiB, filesystem, mount: true });
    await fragment(disk.mountPoint!);
    await exec('sync', ['-f', disk.mountPoint!]);
    const idle = await markImage(disk.device);
    assert.equal(idle.everything, true, 'mounted is not idle');
    assert.match(idle.warnings.join(), /journal needs recovery|not cleanly unmounted/);
    assert.equal((await markImage(disk.device, { state: 'live' })).everything, false);

    await exec('fsfreeze', ['--freeze', disk.mountPoint!]);
    try {
      await compare(disk.device, { state: 'frozen' });
    } finally {
      await exec('fsfreeze', ['--unfreeze', disk.mountPoint!]);
    }
    // The image after a crash is the image while mounted.
    await copyFile(disk.image, `${disk.image}.crashed`);
    assert.equal((await markImage(`${disk.image}.crashed`)).everything, true);
    await disk.remove();
  }
});

test('100 TiB in bounded memory', async (t) => {
  // ext4 does not support files of this size; XFS does.
  const disk = await makeLoop(t, { size: 2048 * MiB, filesystem: 'xfs', mount: true });
  const image = await emptyFile(join(disk.mountPoint!, 'image'), 100 * TiB);
  const layout = [
    '-O',
    '64bit,sparse_super2,^resize_inode,^has_journal',
    '-E',
    'lazy_itable_init=1,nodiscard',
  ];
  await exec('mke2fs', ['-q', '-F', '-t', 'ext4', ...layout, '-i', '67108864', image]);
  const before = process.memoryUsage();
  let peak = 0;
  await using file = await openImage(image);
  const bitmap = new Bitmap(file.size, 64 * 1024 * 1024);
  const mark = await markUsed(
    bitmap,
    async (offset, length) => {
      const { external, heapUsed } = process.memoryUsage();
      peak = Math.max(peak, external + heapUsed - before.external - before.heapUsed);
      return file.readAt(offset, length);
    },
    file.size,
    512,
  );
  assert.deepEqual(mark.warnings, []);
  assert.equal(mark.everything, false);
  const header = (await exec('dumpe2fs', ['-h', image])).stdout;
  const number = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(header)?.[1]);
  assert.equal(mark.usedBytes, (number('Block count') - number('Free blocks')) * number('Block size'));
  assert.ok(bitmap.has(0));
  assert.ok(peak < 150 * MiB, `peak ${peak}`);
});
