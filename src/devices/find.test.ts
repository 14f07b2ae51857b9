import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeDevice } from '../../test/helpers/fake-device.ts';
import type { Device } from './device.ts';
import { findDevice } from './find.ts';

function filesystem(uuid: string, label: string): Device['filesystem'] {
  return { type: 'ext4', uuid, label, blockSize: 4096, size: 1000 };
}

const uuid = '0a1b2c3d-1111-2222-3333-444455556666';
const devices: Device[] = [
  fakeDevice('fake0', { filesystem: filesystem(uuid, 'data') }),
  fakeDevice('fake1', {
    filesystem: filesystem('ffff0000-1111-2222-3333-444455556666', 'twice'),
    mounts: [{ path: '/no/such/place', readOnly: false, root: '/', type: 'ext4' }],
  }),
  fakeDevice('fake2', { filesystem: filesystem('eeee0000-1111-2222-3333-444455556666', 'twice') }),
  fakeDevice('fake3p1', {
    partition: {
      disk: '/dev/fake3',
      number: 1,
      start: 512,
      uuid: 'ABCD-01',
      label: 'EFI system',
      table: 'gpt',
    },
  }),
  fakeDevice('member1', { filesystem: filesystem('dddd0000-1111-2222-3333-444455556666', 'mirror') }),
  fakeDevice('member2', { filesystem: filesystem('dddd0000-1111-2222-3333-444455556666', 'mirror') }),
  fakeDevice('mdx', {
    filesystem: filesystem('dddd0000-1111-2222-3333-444455556666', 'mirror'),
    lowers: ['member1', 'member2'],
  }),
];

for (const [name, found] of [
  [uuid, 'fake0'],
  [uuid.toUpperCase(), 'fake0'],
  [`UUID=${uuid}`, 'fake0'],
  [`uuid="${uuid}"`, 'fake0'],
  ['data', 'fake0'],
  ['LABEL=data', 'fake0'],
  ['/dev/fake1', 'fake1'],
  ['fake1', 'fake1'],
  ['/no/such/place', 'fake1'],
  ['/no/such/place/', 'fake1'],
  ['abcd-01', 'fake3p1'],
  ['PARTUUID=ABCD-01', 'fake3p1'],
  ['EFI system', 'fake3p1'],
  ['PARTLABEL=EFI system', 'fake3p1'],
  ['dddd0000-1111-2222-3333-444455556666', 'mdx'],
] as const)
  test(`"${name}" is found`, async () => {
    assert.equal((await findDevice(devices, name)).kernelName, found);
  });

test('a copy that shows the backup of another device is not found by UUID or label', async () => {
  const copy = fakeDevice('copy', { filesystem: filesystem(uuid, 'data') });
  const isCopy = (device: Device): boolean => device === copy;
  for (const name of [uuid, `UUID=${uuid}`, 'data', 'LABEL=data'])
    assert.equal((await findDevice([copy, ...devices], name, isCopy)).kernelName, 'fake0');
  assert.equal(await findDevice([copy, ...devices], copy.path, isCopy), copy);
  await assert.rejects(findDevice([copy], uuid, isCopy), { code: 'DEVICE_NOT_FOUND' });
  await assert.rejects(findDevice([copy, ...devices], uuid), { code: 'DEVICE_AMBIGUOUS' });
});

test('a name that fits two devices is refused with both names', async () => {
  await assert.rejects(findDevice(devices, 'twice'), {
    code: 'DEVICE_AMBIGUOUS',
    message: '"twice" names 2 block devices: /dev/fake1, /dev/fake2',
  });
});

test('a missing device is reported with the message of the predecessor', async () => {
  await assert.rejects(findDevice(devices, 'nothing'), {
    code: 'DEVICE_NOT_FOUND',
    message: 'Unable to find block device for UUID nothing',
  });
  for (const name of ['PARTUUID=x', 'LABEL=DATA', 'OTHER=data', '', '/dev/null', '/', '/no/such'])
    await assert.rejects(findDevice(devices, name), { code: 'DEVICE_NOT_FOUND' });
});
