/**
 * Proves that a whole disk with a GPT, an ESP, ext4 and XFS is restored to an empty disk of the same and of a
 * larger size. sgdisk checks the tables, cmp and their own checkers the partitions, and a foreign listing the
 * files.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { parseDestination } from '../../src/restore/target/acquire-destination.ts';
import { restoreToTarget } from '../../src/restore/target/to-target.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { attachLoop, detachLoop, makeFilesystem, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { listTree, makeMetadataTree } from '../helpers/metadata-tree.ts';
import { storeImage } from '../helpers/restore-point.ts';

const whole = { after };
const scratch = mkdtempSync(join(tmpdir(), 'restore-disk-'));
atEnd(whole, () => rmSync(scratch, { recursive: true }));

const size = 640 * MiB;
const source = await makeLoop(whole, {
  size,
  partitions: 'label: gpt\nsize=40M,type=U,name=ESP\nsize=160M,name=root\nsize=320M,name=data\n',
});
await makeFilesystem(source.partition(1), 'vfat');
await makeFilesystem(source.partition(2), 'ext4');
await makeFilesystem(source.partition(3), 'xfs');
await exec('mcopy', ['-i', source.partition(1), '/etc/hostname', '::/LOADER.EFI']);
const partitionSize = [40, 160, 320].map((each) => each * MiB);
const listings: string[] = [];
for (const number of [2, 3]) {
  const mountPoint = join(scratch, 'source');
  await mountDevice(source.partition(number), mountPoint);
  try {
    await makeMetadataTree(mountPoint);
    listings.push(await listTree(mountPoint));
  } finally {
    await unmount(mountPoint);
  }
}
await exec('blockdev', ['--flushbufs', source.device]);
const spec = await storeImage(join(scratch, 'store'), source.image);

for (const [what, more] of [
  ['the same size', 0],
  ['a larger size', 200 * MiB + 512 * 7],
] as const)
  test(`onto an empty disk of ${what}`, async (t) => {
    const { image } = await makeLoop(t, { size: size + more, attach: false });
    const device = await attachLoop(image, { partitions: '' });
    atEnd(t, () => detachLoop(device));
    const partition = (number: number): string => `${device}p${number}`;
    const result = await restoreToTarget({
      image: spec,
      imageId: 'disk',
      sectorSize: 512,
      to: parseDestination(device),
    });
    assert.deepEqual(result.warnings, []);
    assert.deepEqual([result.tableMoved, result.partitionsReread], [more > 0, true]);

    const { stdout } = await exec('sgdisk', ['-v', device]);
    assert.match(stdout, /No problems found/);
    // sfdisk leaves a gap behind the table, which is not an error.
    assert.doesNotMatch(stdout.replace(/^Warning: There is a gap/m, ''), /Caution|Warning|Problem:/);
    const free = Number(/(\d+) free sectors/.exec(stdout)?.[1]);
    assert.ok(free * 512 >= more + size - 520 * MiB - 4 * MiB, stdout);
    assert.equal((await exec('sfdisk', ['--verify', device])).code, 0);
    const dump = async (path: string): Promise<string> =>
      (await exec('sfdisk', ['--dump', path])).stdout
        .replaceAll(path, 'DISK')
        .replaceAll(/^(device|last-lba):.*$/gm, '');
    assert.equal(await dump(device), await dump(source.device));
    // The backup table alone works as well.
    await exec('dd', ['if=/dev/zero', `of=${device}`, 'bs=512', 'seek=1', 'count=1', 'status=none']);
    assert.match((await exec('sgdisk', ['-p', device], { allow: [1, 2, 3] })).stdout, /root/);

    // A kernel that was built without GPT has to be given the partitions.
    await exec('partx', ['--update', device]);
    await exec('cmp', [source.partition(1), partition(1)]);
    assert.match((await exec('fsck.vfat', ['-n', partition(1)])).stdout, /files/);
    for (const [i, type] of (['ext4', 'xfs'] as const).entries()) {
      const restored = partition(i + 2);
      await assertWhole(type, restored);
      await assertSameUsed(type, source.partition(i + 2), restored, partitionSize[i + 1]!);
      const mountPoint = join(scratch, `restored-${type}`);
      await mountDevice(restored, mountPoint, type === 'xfs' ? 'ro,nouuid' : 'ro');
      try {
        assert.equal(await listTree(mountPoint), listings[i]);
      } finally {
        await unmount(mountPoint);
      }
    }
  });
