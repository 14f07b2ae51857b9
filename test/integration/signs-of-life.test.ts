/**
 * Proves the signs of life of ext4 and XFS (docs/formats/reboot.md) on the running kernel. A mount for
 * writing has changed them when it returns, even if nothing is written afterwards. Reading changes nothing on
 * ext4. e2fsck, tune2fs and xfs_repair do not write without a trace. Needs root, e2fsprogs, xfsprogs.
 */
import assert from 'node:assert/strict';
import { copyFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { openDeviceSource } from '../../src/block/device-source.ts';
import { isQuickLook } from '../../src/filesystems/ext/signs-of-life.ts';
import { readSignsOfLife } from '../../src/filesystems/signs-of-life.ts';
import { type Signs, signDifference } from '../../src/filesystems/signs.ts';
import { exec } from '../helpers/exec.ts';
import { type LoopDisk, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';

async function readSigns(path: string): Promise<Signs | string> {
  const source = await openDeviceSource(path);
  try {
    return await readSignsOfLife((offset, length) => source.readAt(offset, length), source.size);
  } finally {
    await source.close();
  }
}

async function signs(path: string): Promise<Signs> {
  return trusted(await readSigns(path));
}

function trusted(found: Signs | string): Signs {
  if (typeof found === 'string') assert.fail(`no signs: ${found}`);
  return found;
}

async function refusal(path: string): Promise<string> {
  const found = await readSigns(path);
  return typeof found === 'string' ? found : '';
}

/** Returns why two readings differ: a difference, or the reason why the second one cannot be trusted. */
function change(before: Signs, now: Signs | string): string | undefined {
  return typeof now === 'string' ? now : signDifference(before, now);
}

async function mounted(
  disk: LoopDisk,
  options: string,
  work: (place: string) => Promise<void>,
): Promise<void> {
  const place = join(disk.directory, 'mnt');
  await mountDevice(disk.device, place, options);
  try {
    await work(place);
  } finally {
    await unmount(place);
  }
}

for (const filesystem of ['ext3', 'ext4', 'xfs']) {
  const size = filesystem === 'xfs' ? 320 * MiB : 96 * MiB;

  test(`${filesystem}: unchanged without a mount, and changed by each mount`, async (t) => {
    const disk = await makeLoop(t, { size, filesystem });
    // The log of an XFS that was never mounted has no record of its own.
    await mounted(disk, 'rw', (place) => writeFile(join(place, 'a'), 'a'));
    const first = await signs(disk.device);
    assert.deepEqual(await signs(disk.device), first);
    await mounted(disk, 'rw', () => Promise.resolve());
    const second = await signs(disk.device);
    assert.notEqual(signDifference(first, second), undefined);
    t.diagnostic(String(signDifference(first, second)));
    await mounted(disk, 'rw', (place) => writeFile(join(place, 'b'), 'b'));
    assert.notEqual(signDifference(second, await signs(disk.device)), undefined);
  });

  test(`${filesystem}: a mount that is interrupted the moment it returns shows`, async (t) => {
    const disk = await makeLoop(t, { size, filesystem });
    await mounted(disk, 'rw', (place) => writeFile(join(place, 'a'), 'a'));
    const before = await signs(disk.device);
    const cut = join(disk.directory, 'cut');
    await mounted(disk, 'rw', async () => {
      // The file behind the loop device has all data that the device received, like a disk after a power cut.
      await copyFile(disk.image, cut);
    });
    const what = change(before, await readSigns(cut));
    assert.notEqual(what, undefined);
    t.diagnostic(String(what));
  });

  test(`${filesystem}: mounted read-only, and remounted`, async (t) => {
    const disk = await makeLoop(t, { size, filesystem });
    await mounted(disk, 'rw', (place) => writeFile(join(place, 'a'), 'a'));
    const idle = await signs(disk.device);
    let reading: Signs | string = '';
    await mounted(disk, 'ro', async () => {
      reading = await readSigns(disk.device);
    });
    const after = await signs(disk.device);
    const seen = [change(idle, reading), change(idle, after)];
    t.diagnostic(`mounted read-only: ${String(seen[0])}; then unmounted: ${String(seen[1])}`);
    if (filesystem !== 'xfs') assert.deepEqual(seen, [undefined, undefined]);

    // A root filesystem ends like this: written, remounted read-only, unmounted. It begins read-only, then
    // becomes writable.
    let ending: Signs | string = '';
    await mounted(disk, 'rw', async (place) => {
      await writeFile(join(place, 'c'), 'c');
      await exec('mount', ['-o', 'remount,ro', place]);
      ending = await readSigns(disk.device);
    });
    const ended = trusted(ending);
    const next = await signs(disk.device);
    t.diagnostic(`read-only, then unmounted: ${String(signDifference(ended, next))}`);
    if (filesystem !== 'xfs') assert.equal(signDifference(ended, next), undefined);
    const cut = join(disk.directory, 'cut');
    await mounted(disk, 'ro', async (place) => {
      await exec('mount', ['-o', 'remount,rw', place]);
      await copyFile(disk.image, cut);
    });
    assert.notEqual(change(ended, await readSigns(cut)), undefined);
  });

  test(`${filesystem}: a write in place that is interrupted at once shows`, async (t) => {
    const disk = await makeLoop(t, { size, filesystem });
    await mounted(disk, 'rw', (place) => writeFile(join(place, 'a'), Buffer.alloc(MiB, 1)));
    const before = await signs(disk.device);
    const cut = join(disk.directory, 'cut');
    await mounted(disk, 'rw', async (place) => {
      await exec('dd', [
        'if=/dev/zero',
        `of=${join(place, 'a')}`,
        'bs=64k',
        'count=1',
        'oflag=direct',
        'conv=notrunc',
        'status=none',
      ]);
      await copyFile(disk.image, cut);
    });
    assert.notEqual(change(before, await readSigns(cut)), undefined);
  });
}

test('ext4: the writes of its tools show', async (t) => {
  const disk = await makeLoop(t, { size: 96 * MiB, filesystem: 'ext4' });
  await mounted(disk, 'rw', () => Promise.resolve());
  const first = await signs(disk.device);
  const began = Date.now() - 60_000;
  await exec('e2fsck', ['-p', disk.device]);
  let before = await signs(disk.device);
  assert.ok(
    isQuickLook(first, before, began),
    `a look at a clean one: ${String(signDifference(first, before))}`,
  );
  assert.ok(!isQuickLook(first, before, Date.now() + 10_000), 'one before this boot');
  for (const [tool, ...args] of [
    ['e2fsck', '-f', '-p', disk.device],
    ['tune2fs', '-L', 'other', disk.device],
    ['debugfs', '-w', '-R', 'mkdir x', disk.device],
  ] as const) {
    await exec(tool, args);
    const now = await readSigns(disk.device);
    assert.notEqual(change(before, now), undefined, tool);
    if (typeof now === 'object') assert.ok(!isQuickLook(before, now, began), tool);
    before = typeof now === 'string' ? before : now;
  }
});

test('XFS: the writes of its tools show', async (t) => {
  const disk = await makeLoop(t, { size: 320 * MiB, filesystem: 'xfs' });
  await mounted(disk, 'rw', (place) => writeFile(join(place, 'a'), 'a'));
  const before = await signs(disk.device);
  await exec('xfs_repair', ['-n', disk.device]);
  assert.equal(signDifference(before, await signs(disk.device)), undefined);
  await exec('xfs_repair', [disk.device]);
  assert.notEqual(change(before, await readSigns(disk.device)), undefined, 'xfs_repair');
});

test('filesystems without such signs have none', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext2' });
  assert.match(await refusal(disk.device), /ext2 has no signs/);
  const empty = await makeLoop(t, { size: 64 * MiB });
  assert.match(await refusal(empty.device), /no filesystem/);
});
