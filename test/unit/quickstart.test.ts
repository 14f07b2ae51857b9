import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Cleanup } from '../../scripts/quickstart/cleanup.ts';
import { onlyFrozen, openAndDeleted } from '../../scripts/quickstart/prove.ts';
import { chooseDevice, type ListedDevice } from '../../scripts/quickstart/source.ts';

/** The output of e2fsck 1.47 -fn for an image with one file that was deleted while open. */
const orphan = `e2fsck 1.47.0 (5-Feb-2023)
Pass 1: Checking inodes, blocks, and sizes
Deleted inode 13 has zero dtime.  Fix? no

Pass 2: Checking directory structure
Pass 3: Checking directory connectivity
Pass 4: Checking reference counts
Pass 5: Checking group summary information
Block bitmap differences:  -(9217--12288)
Fix? no

Inode bitmap differences:  -13
Fix? no


j: ********** WARNING: Filesystem still has errors **********

j: 13/16384 files (0.0% non-contiguous), 12586/65536 blocks`;

test('files that were deleted while open are not damage, but any other finding is', () => {
  assert.equal(openAndDeleted(orphan), 1);
  assert.equal(
    openAndDeleted(orphan.replace('Pass 3', "Entry 'x' in / has deleted/unused inode 14.\nPass 3")),
    0,
  );
  assert.equal(openAndDeleted(orphan.replace(/^Deleted.*$/m, '')), 0);
});

/** The output of xfs_repair 6.1 -n for an image taken in a freeze. */
const frozenXfs = `Phase 1 - find and verify superblock...
Phase 2 - using internal log
        - zero log...
ALERT: The filesystem has valuable metadata changes in a log which is being
ignored because the -n option was used.  Expect spurious inconsistencies
which may be resolved by first mounting the filesystem to replay the log.
        - scan filesystem freespace and inode maps...
sb_fdblocks 63525, counted 63984
        - found root inode chunk
Phase 7 - verify link counts...
No modify flag set, skipping filesystem flush and exiting.`;

test('the traces of an XFS freeze are not damage, but any other finding is', () => {
  assert.ok(onlyFrozen(frozenXfs));
  assert.ok(!onlyFrozen(frozenXfs.replace('Phase 7', 'sb_icount 64, counted 128\nPhase 7')));
});

test('a device is found by path, UUID, label, mount point and UUID=; ambiguity is an error', () => {
  const device = (path: string, more: Partial<ListedDevice>): ListedDevice => ({
    ...{ path, kernel_name: path.slice(5), size: 1, used: null, uuid: null, label: null, disk: null },
    ...{
      partition_uuid: null,
      partition_label: null,
      mounts: [],
      backup: { possible: true, how: 'used blocks' },
    },
    ...more,
  });
  const devices = [
    device('/dev/none1', { uuid: 'u-1', label: 'twin', mounts: [{ path: '/no/such place', root: '/' }] }),
    device('/dev/none2', { label: 'twin', partition_uuid: 'p-2' }),
    device('/dev/none3', { uuid: 'u-3', backup: { possible: false, how: 'swap in use' } }),
  ];
  for (const name of ['/dev/none1', 'u-1', 'UUID=u-1', '/no/such place'])
    assert.equal(chooseDevice(devices, name).path, '/dev/none1', name);
  assert.equal(chooseDevice(devices, 'PARTUUID=p-2').path, '/dev/none2');
  assert.throws(() => chooseDevice(devices, 'twin'), /2 devices are called twin: \/dev\/none1, \/dev\/none2/);
  assert.throws(() => chooseDevice(devices, 'nobody'), /no block device is called nobody/);
  assert.throws(() => chooseDevice(devices, 'u-3'), /swap in use/);
});

test('undoes steps in reverse, once, also after a failure; late steps are undone at once', async (t) => {
  t.mock.method(console, 'error', () => undefined);
  const before = process.exitCode;
  const undone: string[] = [];
  const cleanup = new Cleanup();
  const step = (name: string) => () => Promise.resolve(undone.push(name));
  cleanup.add('a', step('a'));
  cleanup.add('b', () => Promise.reject(new Error('no')));
  cleanup.add('c', step('c'));
  await Promise.all([cleanup.run(), cleanup.run()]);
  assert.deepEqual(undone, ['c', 'a']);
  assert.throws(() => cleanup.add('late', step('late')), /interrupted/);
  await cleanup.run();
  assert.deepEqual(undone, ['c', 'a', 'late']);
  process.exitCode = before;
});
