import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeDevice } from '../../test/helpers/fake-device.ts';
import { MiB } from '../base/bytes.ts';
import type { FilesystemIdentity } from '../filesystems/used-map.ts';
import { expectedFilesystems } from './expected-filesystems.ts';

const xfs: FilesystemIdentity = {
  type: 'xfs',
  uuid: '00112233-4455-6677-8899-aabbccddeeff',
  label: undefined,
  blockSize: 4096,
  size: 100 * MiB,
};
const mounted = (type: string) => [{ path: '/mnt', readOnly: true, root: '/', type }];

test('a mount says what a device holds, also a read-only one', () => {
  const disk = fakeDevice('sda', { filesystem: xfs, mounts: mounted('btrfs') });
  assert.deepEqual(expectedFilesystems(disk, [disk]), {
    whole: { type: 'btrfs', how: '/dev/sda is mounted' },
    partitions: [],
  });
});

test('a device that lies on it must show the same filesystem', () => {
  const disk = fakeDevice('sda', { filesystem: xfs, holders: ['dm-0'] });
  const same = fakeDevice('dm-0', { kind: 'dm', filesystem: xfs });
  const { uuid } = xfs;
  const how = '/dev/sda is used by /dev/dm-0';
  assert.deepEqual(expectedFilesystems(disk, [disk, same]).whole, { type: 'xfs', uuid, how });
  const hidden = fakeDevice('dm-0', { kind: 'dm' });
  assert.equal(expectedFilesystems(disk, [disk, hidden]).whole?.type, 'something unknown');
});

test('partitions are named by the byte where they begin, if something shows what they hold', () => {
  const disk = fakeDevice('sda');
  const partition = (number: number) => ({
    partition: { disk: '/dev/sda', number, start: number * MiB, uuid: '', label: '', table: 'gpt' as const },
  });
  const devices = [
    disk,
    fakeDevice('sda1', { ...partition(1), mounts: mounted('ext4') }),
    fakeDevice('sda2', partition(2)),
    fakeDevice('sdb', { mounts: mounted('xfs') }),
  ];
  assert.deepEqual(expectedFilesystems(disk, devices), {
    whole: undefined,
    partitions: [[MiB, { type: 'ext4', how: '/dev/sda1 is mounted' }]],
  });
});
