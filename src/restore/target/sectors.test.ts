/** Tests the largest sector size that each filesystem allows. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FilesystemIdentity } from '../../filesystems/used-map.ts';
import { sectorNeed } from './sectors.ts';

const image = Buffer.alloc(128 * 1024);
image.writeUInt16BE(4096, 102);
image.writeUInt16LE(512, 11);
image.writeUInt8(12, 108);
image.writeUInt32LE(4096, 65536 + 144);
const readAt = (offset: number, length: number): Promise<Buffer> =>
  Promise.resolve(image.subarray(offset, offset + length));

async function largest(type: string, blockSize?: number): Promise<number | undefined> {
  const identity: FilesystemIdentity = {
    type,
    uuid: undefined,
    label: undefined,
    blockSize,
    size: undefined,
  };
  return (await sectorNeed(readAt, identity)).largest;
}

test('the limit is the unit of each filesystem, and unknown for containers', async () => {
  assert.equal(await largest('ext4', 1024), 1024);
  assert.equal(await largest('ext2', 4096), 4096);
  assert.equal(await largest('xfs', 4096), 4096);
  assert.equal(await largest('vfat'), 512);
  assert.equal(await largest('ntfs'), 512);
  assert.equal(await largest('exfat'), 4096);
  assert.equal(await largest('btrfs'), 4096);
  assert.equal(await largest('iso9660'), 2048);
  for (const type of ['LVM2_member', 'crypto_LUKS', 'linux_raid_member', 'zfs_member'])
    assert.equal(await largest(type), undefined);
  assert.equal((await sectorNeed(readAt, undefined)).largest, undefined);
});
