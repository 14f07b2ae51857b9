import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeDevices } from '../../test/helpers/fake-engine.ts';
import { basicInfo, completeInfo, describeDevice, lsbRelease, parseOsRelease } from './machine-info.ts';

test('os-release: quotes, escapes, comments', () => {
  const values = parseOsRelease(
    '# a comment\nID=rocky\nVERSION_ID="9.4"\nPRETTY_NAME=\'Rocky "Blue" Linux\'\nX="a\\$b"\n\nbroken line\n',
  );
  assert.equal(values.get('X'), 'a$b');
  assert.deepEqual(lsbRelease(values), {
    id: 'rocky',
    description: 'Rocky "Blue" Linux',
    release: '9.4',
    codename: '',
  });
});

test('completeinfo has every field of the predecessor, and the devices with a UUID', async () => {
  const info = await completeInfo(fakeDevices, 7);
  for (const field of [
    ...['agent_version', 'hostname', 'kernel', 'os_name', 'arch', 'cpus', 'lsb_release', 'memory'],
    ...['dattod_uptime_seconds', 'block_devices'],
  ])
    assert.ok(field in info, field);
  assert.deepEqual(
    info.block_devices.map((device) => device.real_path),
    ['/dev/fda1', '/dev/fda2'],
  );
  assert.deepEqual(Object.keys(info.block_devices[0]!), [
    ...['uuid', 'real_path', 'device_size', 'block_size', 'file_system', 'mount_location', 'used_space'],
  ]);
  assert.deepEqual(await basicInfo(), {
    agent_version: info.agent_version,
    hostname: info.hostname,
    kernel: info.kernel,
    lsb_release: info.lsb_release,
  });
});

test('a device document has null for each missing value', () => {
  const { uuid, used, mounts, disk, backup } = describeDevice(fakeDevices[0]!);
  assert.deepEqual(
    [uuid, used, mounts, disk, backup],
    [null, null, [], null, { possible: true, how: 'every block' }],
  );
  assert.equal(describeDevice(fakeDevices[1]!).disk, '/dev/fda');
});
