/**
 * Proves that a whole disk with a GPT, an ESP, mounted ext4 and XFS partitions and swap is backed up as one
 * image of one instant. The partitions in the image are whole, and free space is not sent.
 */
import assert from 'node:assert/strict';
import { cp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { assertNothingLeft, backUpWell, daemonFor } from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { assertWhole } from '../helpers/image-proof.ts';
import { attachLoop, detachLoop, makeFilesystem, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';

const whole = { after };
const daemon = await daemonFor(whole);
const server = await startDattosrv(whole, ['--create']);
const size = 1200 * MiB;

test('a whole disk with mounted ext4 and XFS partitions, an ESP and swap', async (t) => {
  const disk = await makeLoop(t, {
    size,
    partitions: 'label: gpt\nsize=32M,type=U\nsize=400M\nsize=400M\n,\n',
  });
  const mounts = [join(disk.directory, 'root'), join(disk.directory, 'data')] as const;
  await makeFilesystem(disk.partition(1), 'vfat');
  await makeFilesystem(disk.partition(2), 'ext4');
  await makeFilesystem(disk.partition(3), 'xfs');
  await makeFilesystem(disk.partition(4), 'swap');
  for (const [number, path] of mounts.entries()) {
    await mountDevice(disk.partition(number + 2), path);
    atEnd(t, () => unmount(path));
    await cp('/usr/share/doc/util-linux', join(path, 'doc'), { recursive: true, verbatimSymlinks: true });
    await writeFile(join(path, 'big'), Buffer.alloc(20 * MiB, 7));
  }

  const status = await backUpWell(daemon, [
    ...['--device', disk.device, '--target', server.uriOf(`disk@${size}`)],
    ...['--max-freeze', '20s'],
  ]);
  const [device] = status.devices;
  assert.ok((device?.freeze_ms ?? 0) > 0);
  // The used data is two almost empty filesystems, the small ESP, swap's header, and the gaps.
  assert.ok((device?.used_bytes ?? 0) < 300 * MiB, String(device?.used_bytes));

  const image = join(server.directory, 'disk');
  const copy = await attachLoop(image, { partitions: '', readOnly: true });
  try {
    await exec('partx', ['--update', copy]);
    const tables = [disk.device, copy].map(async (path) => {
      const { stdout } = await exec('sfdisk', ['--dump', path]);
      return stdout.replaceAll(path, 'DISK').replace(/^device:.*$/m, '');
    });
    const [table, copied] = await Promise.all(tables);
    assert.equal(copied, table);
    await exec('cmp', [disk.partition(1), `${copy}p1`]);
    await assertWhole('ext4', `${copy}p2`, 'frozen');
    await assertWhole('xfs', `${copy}p3`, 'frozen');
    for (const [number, path] of mounts.entries()) {
      const mounted = join(disk.directory, `copy-${number}`);
      await mountDevice(
        `${copy}p${number + 2}`,
        mounted,
        number === 0 ? 'ro,noload' : 'ro,norecovery,nouuid',
      );
      try {
        await exec('diff', ['-r', '--no-dereference', path, mounted]);
      } finally {
        await unmount(mounted);
      }
    }
    const uuid = async (path: string): Promise<string> =>
      (await exec('blkid', ['-p', '-s', 'UUID', '-o', 'value', path])).stdout;
    assert.equal(await uuid(`${copy}p4`), await uuid(disk.partition(4)));
  } finally {
    await detachLoop(copy);
  }
  await assertNothingLeft(daemon);
});
