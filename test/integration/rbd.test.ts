/**
 * Proves docs/rbd.md: backups through qemu-nbd into an image of a real Ceph, with a snapshot after each. Both
 * snapshots equal the device at that time, read by `rbd export` and by nbdcopy.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { backUpWell, scratchFor } from '../helpers/backup.ts';
import { startCeph } from '../helpers/ceph.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { fillDevice } from '../helpers/files.ts';
import { assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { startQemuNbd } from '../helpers/qemu-nbd.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await trackedDaemonFor(whole);
const ceph = await startCeph(whole);

test('a full, a snapshot, an incremental, a snapshot: both snapshots read back right', async (t) => {
  const size = 256 * MiB;
  const disk = await makeLoop(t, { size, filesystem: 'ext4' });
  await fillDevice(disk, 48 * MiB);
  await ceph.makeImage('rbd', 'host-data', size);
  const server = await startQemuNbd([
    ...['--format=raw', '--cache=writeback', '--discard=unmap', '--detect-zeroes=unmap'],
    ceph.qemuAddress('rbd', 'host-data'),
  ]);
  atEnd(t, () => server.stop());
  const target = ['--device', disk.device, '--target', server.uri];
  const copyOfSource = async (name: string): Promise<string> => {
    const path = join(scratch, name);
    await exec('cp', ['--sparse=always', disk.device, path]);
    return path;
  };

  const full = await backUpWell(daemon, target);
  assert.equal(full.devices[0]?.kind, 'full');
  await ceph.run('rbd', ['snap', 'create', 'rbd/host-data@one']);
  const first = await copyOfSource('first.src');

  const mountPoint = join(disk.directory, 'changing');
  await mountDevice(disk.device, mountPoint);
  await writeFile(join(mountPoint, 'new'), randomBytes(3 * MiB));
  await rm(join(mountPoint, 'large-1'));
  await unmount(mountPoint);

  const incremental = await backUpWell(daemon, target, '--incremental');
  assert.equal(incremental.devices[0]?.kind, 'incremental');
  await ceph.run('rbd', ['snap', 'create', 'rbd/host-data@two']);
  const second = await copyOfSource('second.src');

  const { stdout } = await ceph.run('rbd', [
    'diff',
    '--from-snap',
    'one',
    'rbd/host-data@two',
    '--format=json',
  ]);
  const changed = JSON.parse(stdout) as { length: number; exists: string }[];
  const bytes = changed.reduce((sum, { length, exists }) => sum + (exists === 'true' ? length : 0), 0);
  t.diagnostic(`${bytes} bytes differ between the snapshots, ${incremental.devices[0].bytes_sent} were sent`);
  assert.ok(bytes >= 3 * MiB && bytes < 12 * MiB, `${bytes} bytes differ`);

  // The page gives two ways: `rbd export`, and a second, read-only qemu-nbd.
  const exported = join(scratch, 'one.img');
  await ceph.run('rbd', ['export', '--no-progress', 'rbd/host-data@one', exported]);
  const reader = await startQemuNbd([
    ...['--format=raw', '--read-only'],
    ceph.qemuAddress('rbd', 'host-data', 'two'),
  ]);
  atEnd(t, () => reader.stop());
  const copied = join(scratch, 'two.img');
  await exec('nbdcopy', ['--', reader.uri, copied]);

  for (const [source, image] of [
    [first, exported],
    [second, copied],
  ] as const) {
    assert.ok((await assertSameUsed('ext4', source, image, size)) > 30 * MiB);
    await assertWhole('ext4', image);
  }
  const { code } = await exec('cmp', ['-s', exported, copied], { allow: [1] });
  assert.equal(code, 1, 'the two differ from one another');
});
