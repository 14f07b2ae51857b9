/**
 * Proves that data which this program shows or writes is never the source of a backup, under any name. The
 * cases are a mounted recovery point, also if the record of the mount is lost, and the destination of a
 * running restore.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { mkdir, rm, symlink } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { mountImage, unmountImage } from '../../src/restore/mount/mount.ts';
import { writeRecord } from '../../src/restore/mount/mount-record.ts';
import { backUpWell, daemonFor, refused, scratchFor } from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { attachLoop, detachLoop, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { storeImage } from '../helpers/restore-point.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await daemonFor(whole);
const { runDirectory } = daemon;

test('a recovery point mounted in the place of its device', async (t) => {
  const disk = await makeLoop(t, {
    ...{ size: 32 * MiB, filesystem: 'ext4' },
  });
  const directory = join(disk.directory, 'data');
  await mountDevice(disk.device, directory);
  await fillWithFiles(directory, 2 * MiB);
  await exec('sync', ['-f', directory]);
  const { stdout } = await exec('blkid', ['-p', '-s', 'UUID', '-o', 'value', disk.device]);
  const uuid = stdout.trim();
  await unmount(directory);
  const image = await storeImage(join(scratch, 'store'), disk.image);
  const target = join(scratch, 'image');
  const start = (name: string): string[] => ['startbackup', '--full', '--device', name, '--target', target];

  for (const method of ['nbdfuse', 'qemu-storage-daemon'] as const) {
    const subject = { point: 'ab'.repeat(16), device: '/dev/gone' };
    const record = await mountImage({ image, subject, directory, sectorSize: 512, runDirectory, method });
    atEnd(t, () =>
      unmountImage(runDirectory, directory).then(
        () => undefined,
        () => undefined,
      ),
    );
    const loop = record.loop!;
    const link = join(scratch, `link-${method}`);
    await symlink(loop, link);
    const above = await attachLoop(loop, { readOnly: true });
    try {
      for (const name of method === 'nbdfuse' ? [loop, directory, link, above] : [directory]) {
        const error = await refused(daemon, start(name), 'SOURCE_IS_BACKUP');
        assert.match(error.message, /shows a recovery point/);
      }
      await rm(join(runDirectory, 'mounts', record.id, 'record.json'));
      await refused(daemon, start(above), 'SOURCE_IS_BACKUP');
      await writeRecord(runDirectory, record);
      // The name that both devices share means the real device.
      if (method === 'nbdfuse') {
        const status = await backUpWell(daemon, ['--device', `UUID=${uuid}`, '--target', target]);
        assert.equal(status.devices[0]?.device, disk.device);
      }
    } finally {
      await detachLoop(above);
    }
    await unmountImage(runDirectory, directory);
    await mkdir(directory, { recursive: true });
  }
});

test('a device that a program of ours writes to', async (t) => {
  const disk = await makeLoop(t, { size: 16 * MiB, partitions: 'label: gpt\nsize=8M\n' });
  const above = await attachLoop(disk.partition(1));
  atEnd(t, () => detachLoop(above));
  // A restore holds its destination in this way, by the program that runs the daemon: its Node runtime.
  const holder = await holdExclusively(disk.device);
  const start = (name: string): string[] => [
    ...['startbackup', '--full', '--device', name, '--target', join(scratch, 'held')],
  ];
  try {
    for (const name of [disk.device, disk.partition(1), above]) {
      const error = await refused(daemon, start(name), 'DEVICE_BUSY');
      assert.match(error.message, new RegExp(`process ${holder.pid}\\) writes to ${disk.device}`));
    }
  } finally {
    await holder.end();
  }
});

/** Starts another process that has the device open for writing, exclusively, until `end`. */
async function holdExclusively(device: string): Promise<{ pid: number; end: () => Promise<void> }> {
  const build = process.env['AGENT_TEST_BUILD'];
  const runtime = build === undefined ? process.execPath : join(build, 'runtime/node');
  const script = `require('node:fs').openSync(process.argv[1], ${constants.O_RDWR | constants.O_EXCL}); console.log('held'); process.stdin.resume();`;
  const child = spawn(runtime, ['-e', script, device], { stdio: ['pipe', 'pipe', 'inherit'] });
  await once(child.stdout, 'data');
  return {
    pid: child.pid!,
    end: async () => {
      child.stdin.end();
      await once(child, 'exit');
    },
  };
}
