/**
 * Proves that filesystems at unusual places are frozen like any other, or refused with the reason. The cases
 * are covered mount points, bind mounts of single files, names that are not UTF-8, and an ext4 that stopped
 * writing after an error.
 */
import assert from 'node:assert/strict';
import { mkdir, writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { backUp, backUpWell, daemonFor, refused, scratchFor } from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertWhole } from '../helpers/image-proof.ts';
import { makeLoop, mountDevice, umount, unmount } from '../helpers/loop.ts';
import { startChurn } from '../helpers/writers.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await daemonFor(whole);

const start = (device: string, name: string): string[] => [
  ...['--device', device, '--target', join(scratch, name)],
];

test('a filesystem whose only mount point is covered by another mount', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
  const mountPoint = disk.mountPoint!;
  const other = join(disk.directory, 'other');
  const parent = disk.directory;
  for (const cover of [mountPoint, parent]) {
    await exec('mount', ['-t', 'tmpfs', 'none', cover]);
    let covered = true;
    const uncover = async (): Promise<void> => {
      if (covered) await umount(cover);
      covered = false;
    };
    atEnd(t, uncover);
    const error = await refused(
      daemon,
      ['startbackup', '--full', ...start(disk.device, 'covered')],
      'FREEZE_FAILED',
    );
    assert.match(error.message, /which another mount covers/);
    assert.match(error.hint ?? '', /unmount what covers it/);
    // The path leads to the tmpfs.
    await refused(daemon, ['startbackup', '--full', ...start(mountPoint, 'covered')], 'DEVICE_NOT_FOUND');
    await uncover();
  }

  // A second mount point makes it accessible.
  await mountDevice(disk.device, other);
  atEnd(t, () => unmount(other));
  await exec('mount', ['-t', 'tmpfs', 'none', mountPoint]);
  atEnd(t, () => unmount(mountPoint));
  const writer = await startChurn(t, other);
  await backUpWell(daemon, start(disk.device, 'second'));
  await writer.stop();
  await assertWhole('ext4', join(scratch, 'second'), 'frozen');
});

test('a filesystem of which only one file is mounted', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4' });
  const mountPoint = join(disk.directory, 'mnt');
  await mountDevice(disk.device, mountPoint);
  atEnd(t, async () => {
    await exec('umount', [mountPoint], { allow: [0, 32] });
  });
  await fillWithFiles(mountPoint, 4 * MiB);
  await writeFile(join(mountPoint, 'file'), 'shown');
  await exec('mknod', [join(mountPoint, 'null'), 'c', '1', '3']);
  const place = join(scratch, 'place');
  await writeFile(place, '');
  atEnd(t, async () => {
    await exec('umount', [place], { allow: [0, 32] });
  });
  await exec('mount', ['--bind', join(mountPoint, 'file'), place]);
  await unmount(mountPoint);
  await writeFile(place, Buffer.alloc(MiB, 'changed'));
  const status = await backUpWell(daemon, start(disk.device, 'one-file'));
  assert.ok((status.devices[0]?.freeze_ms ?? 0) > 0);
  await assertWhole('ext4', join(scratch, 'one-file'), 'frozen');
  const { stdout } = await exec('debugfs', ['-R', 'cat file', join(scratch, 'one-file')]);
  assert.equal(stdout.slice(0, 14), 'changedchanged');

  // A device node is never opened.
  await mountDevice(disk.device, mountPoint);
  await umount(place);
  await exec('mount', ['--bind', join(mountPoint, 'null'), place]);
  await unmount(mountPoint);
  const { status: failed } = await backUp(daemon, start(disk.device, 'one-node'));
  assert.deepEqual([failed.state, failed.error?.code], ['FAILED', 'FREEZE_FAILED']);
  assert.match(failed.error?.message ?? '', /special file/);
});

test('a mount point whose name is not UTF-8', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4' });
  // Node replaces such bytes on its command line by U+FFFD.
  const shown = join(disk.directory, 'latin1-\ufffd\ufffd \u20ac');
  const script = 'p="$1/$(printf \'latin1-\\344\\377 \\342\\202\\254\')"; mkdir "$p"; mount "$2" "$p"';
  await exec('sh', ['-c', script, 'sh', disk.directory, disk.device]);
  atEnd(t, async () => {
    await umount(disk.device);
  });
  for (const name of [disk.device, shown]) {
    const status = await backUpWell(daemon, start(name, `latin1-${basename(name).length}`));
    assert.ok((status.devices[0]?.freeze_ms ?? 0) > 0);
    await assertWhole('ext4', join(scratch, `latin1-${basename(name).length}`), 'frozen');
  }
});

test('an ext4 that accepts no more writes after an error', async (t) => {
  const disk = await makeLoop(t, {
    ...{ size: 64 * MiB, filesystem: 'ext4', mkfsArgs: ['-e', 'remount-ro'], mount: true },
  });
  await fillWithFiles(disk.mountPoint!, 4 * MiB);
  await mkdir(join(disk.mountPoint!, 'last'));
  await exec('sync', ['-f', disk.mountPoint!]);
  await writeFile(`/sys/fs/ext4/${basename(disk.device)}/trigger_fs_error`, '1');
  const { status } = await backUp(daemon, start(disk.device, 'error'));
  assert.deepEqual([status.state, status.error], ['SUCCEEDED', null]);
  assert.deepEqual(
    status.warnings.filter(({ code }) => code !== 'EVERYTHING_USED'),
    [],
  );
  // The device's page cache holds data that was never written.
  await exec('cmp', [disk.image, join(scratch, 'error')]);
});
