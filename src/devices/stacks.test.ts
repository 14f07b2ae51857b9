/** Inventory and stacking over fixtures: trees of LVM, md, crypt, partitions and loop devices. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { writeProc, writeSysfs } from '../../test/helpers/sysfs-tree.ts';
import { parseMountinfo } from '../linux/mountinfo.ts';
import type { Device } from './device.ts';
import { listDevices } from './inventory.ts';
import { noAnswer } from '../base/bounded-call.ts';
import type { Probed } from './probe-device.ts';
import { filesystemsOn, liesOn, readStack, withLowers, withUppers } from './stacking.ts';

const root = mkdtempSync(join(tmpdir(), 'stacks-'));
after(() => rmSync(root, { recursive: true }));
const sys = join(root, 'sys');
const proc = join(root, 'proc');

/*
 * sda: sda1 (vfat), sda2 (LVM member: vg-root, and vg-home in two pieces with sdb1).
 * sdb: sdb1 (LVM member), sdb2 and sdc1 under md0, md0 under the crypt device.
 * loop0 is over a file on vg-home, loop1 over a file on loop0's filesystem.
 * loop2 is over a deleted file of vg-root.
 */
writeSysfs(sys, [
  {
    name: 'sda',
    dev: '8:0',
    size: 2_000_000,
    partitions: [
      { name: 'sda1', dev: '8:1', size: 100_000, start: 2048 },
      { name: 'sda2', dev: '8:2', size: 1_800_000, start: 102_400, holders: ['dm-0', 'dm-1'] },
    ],
  },
  {
    name: 'sdb',
    dev: '8:16',
    size: 2_000_000,
    partitions: [
      { name: 'sdb1', dev: '8:17', size: 900_000, start: 2048, holders: ['dm-1'] },
      { name: 'sdb2', dev: '8:18', size: 900_000, start: 1_000_000, holders: ['md0'] },
    ],
  },
  {
    name: 'sdc',
    dev: '8:32',
    size: 2_000_000,
    partitions: [{ name: 'sdc1', dev: '8:33', size: 900_000, start: 2048, holders: ['md0'] }],
  },
  dm('dm-0', '253:0', 'vg-root', ['sda2']),
  dm('dm-1', '253:1', 'vg-home', ['sda2', 'sdb1']),
  dm('dm-2', '253:2', 'secret', ['md0']),
  dm('dm-3', '253:3', 'asleep', [], { 'dm/suspended': '1' }),
  {
    name: 'md0',
    dev: '9:0',
    size: 890_000,
    slaves: ['sdb2', 'sdc1'],
    holders: ['dm-2'],
    attributes: { 'md/array_state': 'clean' },
  },
  loop('loop0', '7:0', '/home/images/disk one.img'),
  loop('loop1', '7:1', '/srv/inner/x.img'),
  loop('loop2', '7:2', '/var/gone.img (deleted)'),
  { name: 'loop3', dev: '7:3', size: 0 },
  { name: 'sr0', dev: '11:0', size: 4000 },
  { name: 'nvme0c0n1', dev: '259:9', size: 4000, attributes: { hidden: '1' } },
  { name: 'cciss!c0d0', dev: '104:0', size: 4000 },
]);

const mountinfo = `22 1 253:0 / / rw shared:1 - ext4 /dev/mapper/vg-root rw
23 22 8:1 / /boot/efi rw - vfat /dev/sda1 rw
24 22 253:1 /user /mnt/bind ro - ext4 /dev/mapper/vg-home rw
25 22 253:1 / /home rw - ext4 /dev/mapper/vg-home rw
26 22 7:0 / /srv/inner rw - xfs /dev/loop0 rw
27 22 7:1 / /srv/in\\040most rw - ext4 /dev/loop1 rw
28 22 253:2 / /secret ro - ext4 /dev/mapper/secret ro
29 22 0:30 / /run rw - tmpfs tmpfs rw
30 22 0:31 / /over rw - overlay overlay rw,lowerdir=/usr,upperdir=/home/upper,workdir=/home/work
`;
writeProc(proc, mountinfo);

function dm(
  name: string,
  dev: string,
  dmName: string,
  slaves: readonly string[],
  more: Readonly<Record<string, string>> = {},
): Parameters<typeof writeSysfs>[1][number] {
  return {
    name,
    dev,
    size: 500_000,
    slaves,
    attributes: { 'dm/name': dmName, 'dm/uuid': `LVM-${dmName}`, ...more },
  };
}

function loop(name: string, dev: string, file: string): Parameters<typeof writeSysfs>[1][number] {
  return { name, dev, size: 100_000, attributes: { 'loop/backing_file': file, 'loop/offset': '0' } };
}

/** Finds the mount with the longest path above the given path. */
function mountIdByPath(text: string): (path: string) => Promise<number | undefined> {
  const mounts = parseMountinfo(Buffer.from(text));
  return (path) => {
    const above = mounts.filter((mount) => mount.path === '/' || `${path}/`.startsWith(`${mount.path}/`));
    return Promise.resolve(above.sort((a, b) => b.path.length - a.path.length)[0]?.id);
  };
}

const options = {
  sys,
  proc,
  mountId: mountIdByPath(mountinfo),
  backing: ({ name }: { name: string }) =>
    Promise.resolve(name === 'loop2' ? { major: 253, minor: 0, inode: 77 } : undefined),
};

function fakeProbe(path: string): Promise<Probed | undefined> {
  const filesystem = (type: string): Probed => ({
    filesystem: { type, uuid: undefined, label: undefined, blockSize: undefined, size: undefined },
    table: undefined,
    partitions: [],
  });
  if (path === '/dev/sda')
    return Promise.resolve({
      filesystem: undefined,
      table: 'gpt',
      partitions: [{ number: 2, start: 102_400 * 512, uuid: 'aaaa', label: 'system' }],
    });
  if (path === '/dev/dm-0') return Promise.resolve(filesystem('ext4'));
  if (path === '/dev/dm-2') return Promise.reject(noAnswer('reading', path, 50));
  if (path === '/dev/sda2') return Promise.resolve(filesystem('LVM2_member'));
  if (path === '/dev/sdc') return Promise.reject(new Error('dead'));
  return Promise.resolve(filesystem('swap'));
}

async function inventory(): Promise<Map<string, Device>> {
  const devices = await listDevices({
    ...options,
    probe: fakeProbe,
    usedBytes: (path) => Promise.resolve(path === '/home' ? 4242 : undefined),
    patience: 50,
  });
  return new Map(devices.map((device) => [device.kernelName, device]));
}

test('all devices that hold data are listed, with the devices above and below', async () => {
  const devices = await inventory();
  assert.deepEqual(
    [...devices.keys()].sort(),
    ['cciss!c0d0', 'dm-0', 'dm-1', 'dm-2', 'dm-3', 'loop0', 'loop1', 'loop2', 'md0', 'sda', 'sda1', 'sda2']
      .concat(['sdb', 'sdb1', 'sdb2', 'sdc', 'sdc1'])
      .sort(),
  );
  const kinds = Object.fromEntries([...devices].map(([name, { kind }]) => [name, kind]));
  assert.equal(kinds['sda'], 'disk');
  assert.equal(kinds['sda2'], 'partition');
  assert.equal(kinds['dm-1'], 'dm');
  assert.equal(kinds['md0'], 'md');
  assert.equal(kinds['loop0'], 'loop');
  assert.equal(devices.get('cciss!c0d0')?.path, '/dev/cciss/c0d0');
  assert.deepEqual(devices.get('sda2')?.holders, ['dm-0', 'dm-1']);
  assert.deepEqual(devices.get('sda2')?.lowers, ['sda']);
  assert.deepEqual(devices.get('dm-1')?.lowers, ['sda2', 'sdb1']);
  assert.deepEqual(devices.get('md0')?.lowers, ['sdb2', 'sdc1']);
  assert.deepEqual(devices.get('loop0')?.lowers, ['dm-1']);
  assert.deepEqual(devices.get('loop1')?.lowers, ['loop0']);
  assert.deepEqual(devices.get('loop2')?.lowers, ['dm-0']);
  assert.equal(devices.get('loop2')?.backingFile, '/var/gone.img');
  assert.equal(devices.get('sda2')?.size, 1_800_000 * 512);
  assert.equal(devices.get('sda2')?.physicalSectorSize, 4096);
});

test('partitions are matched with their entries in the table', async () => {
  const devices = await inventory();
  assert.deepEqual(devices.get('sda2')?.partition, {
    disk: '/dev/sda',
    number: 2,
    start: 102_400 * 512,
    uuid: 'aaaa',
    label: 'system',
    table: 'gpt',
  });
});

test('the best mount comes first, and a read-only bind mount does not make a filesystem read-only', async () => {
  const devices = await inventory();
  assert.deepEqual(devices.get('dm-1')?.mounts, [
    { path: '/home', readOnly: false, root: '/', type: 'ext4' },
    { path: '/mnt/bind', readOnly: false, root: '/user', type: 'ext4' },
  ]);
  assert.equal(devices.get('dm-1')?.used, 4242);
  assert.equal(devices.get('dm-2')?.mounts[0]?.readOnly, true);
  assert.equal(devices.get('loop1')?.mounts[0]?.path, '/srv/in most');
});

test('each device tells how it can be backed up', async () => {
  const devices = await inventory();
  assert.deepEqual(devices.get('dm-0')?.backup, { possible: true, how: 'used blocks (ext4)' });
  assert.deepEqual(devices.get('sda')?.backup, { possible: true, how: 'used blocks of each partition' });
  assert.deepEqual(devices.get('sda2')?.backup, {
    possible: true,
    how: 'every block (LVM2_member: no used map)',
  });
  assert.deepEqual(devices.get('sda1')?.backup, { possible: true, how: 'header only (swap)' });
  assert.deepEqual(devices.get('dm-3')?.backup, { possible: false, how: 'the device is suspended' });
  // A device that does not answer, and one that fails, hide no other device.
  assert.deepEqual(devices.get('dm-2')?.backup, { possible: false, how: 'the device does not answer' });
  assert.deepEqual(devices.get('sdc')?.backup, { possible: false, how: 'the device cannot be read' });
});

test('filesystems freeze from the innermost outwards, through every layer', async () => {
  const stack = await readStack(options);
  const order = (...names: string[]): string[] => filesystemsOn(stack, names).map(({ path }) => path);
  assert.deepEqual(order('sda1'), ['/boot/efi']);
  assert.deepEqual(order('sdb'), ['/srv/in most', '/secret', '/srv/inner', '/home']);
  assert.deepEqual(order('sda'), ['/srv/in most', '/srv/inner', '/', '/home', '/boot/efi']);
  assert.deepEqual(order('sdc'), ['/secret']);
  assert.deepEqual(order('dm-0'), ['/']);
  assert.deepEqual(order('loop0', 'sda1'), ['/srv/in most', '/srv/inner', '/boot/efi']);
  const home = filesystemsOn(stack, ['dm-1']).find(({ device }) => device === 'dm-1');
  assert.equal(home?.readOnly, false);
  assert.equal(filesystemsOn(stack, ['dm-2'])[0]?.readOnly, true);
});

test('all devices above and below are found', async () => {
  const stack = await readStack(options);
  assert.deepEqual([...withUppers(stack, 'sdb2')].sort(), ['dm-2', 'md0', 'sdb2']);
  assert.deepEqual([...withLowers(stack, 'loop1')].sort(), [
    ...['dm-1', 'loop0', 'loop1', 'sda', 'sda2', 'sdb', 'sdb1'],
  ]);
});

test('a filesystem cannot be frozen if its mount point is covered, and the error tells it', async () => {
  const hidden = mountinfo.replace('27 22 7:1 / /srv/in\\040most', '27 22 7:1 / /srv/inner/below');
  writeProc(join(root, 'covered'), hidden);
  const stack = await readStack({
    ...options,
    proc: join(root, 'covered'),
    mountId: (path) => (path === '/srv/inner/below' ? Promise.resolve(26) : options.mountId(path)),
  });
  assert.throws(() => filesystemsOn(stack, ['loop1']), {
    code: 'FREEZE_FAILED',
    message: /\/srv\/inner\/below, which another mount covers/,
  });
});

test('a target on a filesystem of the source is found to lie on it, through any number of layers', async () => {
  const stack = await readStack(options);
  const lies = async (target: string, source: string): Promise<boolean> =>
    (await liesOn(stack, target, source)) !== undefined;
  assert.equal(await lies('/home/a.img', 'dm-1'), true);
  assert.equal(await lies('/home/a.img', 'sda'), true);
  assert.equal(await lies('/home/a.img', 'sda2'), true);
  assert.equal(await lies('/home/a.img', 'sdb1'), true);
  assert.equal(await lies('/srv/inner/a.img', 'dm-1'), true);
  assert.equal(await lies('/srv/in most/a.img', 'sda'), true);
  assert.equal(await lies('/over/a.img', 'dm-1'), true);
  assert.equal(await lies('/home/a.img', 'dm-0'), false);
  assert.equal(await lies('/home/a.img', 'loop0'), false);
  assert.equal(await lies('/run/a.img', 'sda'), false);
  assert.equal(await lies('/secret/a.img', 'sda'), false);
});
