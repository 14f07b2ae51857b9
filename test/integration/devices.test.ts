/**
 * Compares the inventory with lsblk and blkid on loop devices with filesystems and partitions, and finds the
 * devices by all their names. Checks the order of device stacks with mounts, bind mounts and a filesystem on
 * a loop file.
 */
import assert from 'node:assert/strict';
import { mkdir, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { Device } from '../../src/devices/device.ts';
import { findDevice } from '../../src/devices/find.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { filesystemsOn, liesOn, readStack, refuseSelf } from '../../src/devices/stacking.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { giveUpForeignMounts } from '../helpers/foreign-mounts.ts';
import { makeFilesystem, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';

const gpt = `label: gpt
size=8M, name="first part"
size=64M, name=second
size=20M, name=third
`;

interface LsblkDevice {
  name: string;
  path: string;
  'maj:min': string;
  size: number;
  ro: boolean;
  'log-sec': number;
  'phy-sec': number;
  fstype: string | null;
  uuid: string | null;
  label: string | null;
  partuuid: string | null;
  partlabel: string | null;
  mountpoints: (string | null)[];
  fsused: string | number | null;
  children?: LsblkDevice[];
}

/** Returns lsblk's view; filesystems as blkid probes them, since udev may not run here. */
async function oracle(device: string): Promise<Map<string, LsblkDevice>> {
  const columns = 'NAME,PATH,MAJ:MIN,SIZE,RO,LOG-SEC,PHY-SEC,MOUNTPOINTS,FSUSED';
  const { stdout } = await exec('lsblk', ['--json', '--bytes', '--output', columns, device]);
  const found = new Map<string, LsblkDevice>();
  const visit = async (each: LsblkDevice): Promise<void> => {
    const probed = await exec('blkid', ['--probe', '--output', 'export', each.path], { allow: [2] });
    const value = (key: string): string | null => {
      const text = new RegExp(`^${key}=(.*)$`, 'm').exec(probed.stdout)?.[1];
      return text?.replace(/\\(.)/g, '$1') ?? null;
    };
    found.set(each.name, {
      ...each,
      fstype: value('TYPE'),
      uuid: value('UUID'),
      label: value('LABEL'),
      partuuid: value('PART_ENTRY_UUID'),
      partlabel: value('PART_ENTRY_NAME'),
    });
    for (const child of each.children ?? []) await visit(child);
  };
  for (const each of (JSON.parse(stdout) as { blockdevices: LsblkDevice[] }).blockdevices) await visit(each);
  return found;
}

function compare(ours: Device, theirs: LsblkDevice): void {
  assert.equal(ours.path, theirs.path);
  assert.equal(`${ours.major}:${ours.minor}`, theirs['maj:min']);
  assert.equal(ours.size, theirs.size);
  assert.equal(ours.readOnly, theirs.ro);
  assert.equal(ours.sectorSize, theirs['log-sec']);
  assert.equal(ours.physicalSectorSize, theirs['phy-sec']);
  assert.equal(ours.filesystem?.type ?? null, theirs.fstype);
  assert.equal(ours.filesystem?.uuid ?? null, theirs.uuid);
  assert.equal(ours.filesystem?.label ?? null, theirs.label);
  assert.equal(ours.partition?.uuid ?? null, theirs.partuuid);
  assert.equal(ours.partition?.label ?? null, theirs.partlabel);
  assert.deepEqual(
    // lsblk treats a newline in a path as its end.
    ours.mounts.flatMap(({ path }) => path.split('\n')).sort(),
    theirs.mountpoints.filter((path) => path !== null).sort(),
  );
  if (theirs.fsused !== null) assert.equal(ours.used, Number(theirs.fsused));
}

test('partitions and filesystems equal the output of lsblk and blkid', async (t) => {
  const disk = await makeLoop(t, { size: 100 * MiB, partitions: gpt });
  await makeFilesystem(disk.partition(1), 'ext2', ['-L', 'small one']);
  await makeFilesystem(disk.partition(2), 'ext4', ['-L', 'data']);
  await makeFilesystem(disk.partition(3), 'swap', ['--label', 'swapping']);
  const place = join(disk.directory, 'a place\twith\nodd \\names #1');
  await mountDevice(disk.partition(2), place);
  atEnd(t, () => unmount(place));
  const bind = join(disk.directory, 'bind');
  await mkdir(join(place, 'sub'));
  await mountDevice(join(place, 'sub'), bind, 'bind,ro');
  atEnd(t, () => unmount(bind));
  const plain = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4', readOnly: false, sectorSize: 4096 });
  const readOnly = await makeLoop(t, { size: 16 * MiB, readOnly: true });
  await exec('sync', ['--file-system', place]);

  const devices = await listDevices();
  for (const device of [disk.device, plain.device, readOnly.device])
    for (const theirs of (await oracle(device)).values()) {
      const ours = devices.find((each) => each.kernelName === theirs.name);
      assert.ok(ours !== undefined, `${theirs.name} is missing`);
      compare(ours, theirs);
    }

  const second = devices.find((each) => each.path === disk.partition(2));
  assert.equal(second?.partition?.start, (8 + 1) * MiB);
  assert.equal(second.partition.disk, disk.device);
  assert.deepEqual(second.lowers, [disk.device.replace('/dev/', '')]);
  assert.deepEqual(second.mounts[0], { path: place, readOnly: false, root: '/', type: 'ext4' });
  assert.deepEqual(second.mounts[1]?.root, '/sub');
  const whole = devices.find((each) => each.path === disk.device);
  assert.equal(whole?.backingFile, disk.image);
  assert.equal(whole.backup.how, 'used blocks of each partition');
});

test('a device is found by each of its names', async (t) => {
  const disk = await makeLoop(t, { size: 100 * MiB, partitions: gpt });
  const uuid = '5b2d6ee0-7a54-4d19-b6b4-0123456789ab';
  await makeFilesystem(disk.partition(2), 'ext4', ['-U', uuid, '-L', 'by label']);
  const place = join(disk.directory, 'mount here');
  await mountDevice(disk.partition(2), place);
  atEnd(t, () => unmount(place));
  const link = join(disk.directory, 'by-id-link');
  await symlink(disk.partition(2), link);
  const linkToPlace = join(disk.directory, 'link-to-place');
  await symlink(place, linkToPlace);
  const devices = await listDevices();
  const partition = devices.find((each) => each.path === disk.partition(2));
  const partuuid = partition?.partition?.uuid ?? '';
  for (const name of [
    ...[uuid, uuid.toUpperCase(), `UUID=${uuid}`, 'by label', 'LABEL=by label'],
    ...[partuuid, `PARTUUID=${partuuid}`, 'second', 'PARTLABEL=second'],
    ...[disk.partition(2), link, place, `${place}/`, linkToPlace, disk.partition(2).replace('/dev/', '')],
  ])
    assert.equal((await findDevice(devices, name)).path, disk.partition(2), name);

  const twin = await makeLoop(t, { size: 64 * MiB });
  await exec('dd', [`if=${disk.partition(2)}`, `of=${twin.device}`, 'bs=1M', 'status=none', 'conv=fsync']);
  await assert.rejects(findDevice(await listDevices(), uuid), {
    code: 'DEVICE_AMBIGUOUS',
    message: new RegExp(`${disk.partition(2)}.*${twin.device}|${twin.device}.*${disk.partition(2)}`),
  });
});

test('a filesystem on a loop file is frozen before the one that holds it, and no target may lie on either', async (t) => {
  const outer = await makeLoop(t, { size: 256 * MiB, filesystem: 'ext4', mount: true });
  const inner = await makeLoop(t, {
    size: 64 * MiB,
    filesystem: 'ext4',
    mount: 'inner',
    directory: outer.mountPoint!,
  });
  const other = await makeLoop(t, { size: 16 * MiB });
  const name = (device: string): string => device.replace('/dev/', '');
  let stack = await readStack();
  const order = (device: string): string[] => filesystemsOn(stack, [name(device)]).map(({ path }) => path);
  assert.deepEqual(order(outer.device), [inner.mountPoint, outer.mountPoint]);
  assert.deepEqual(order(inner.device), [inner.mountPoint]);
  assert.deepEqual(order(other.device), []);

  for (const target of [
    ...[outer.device, inner.device, outer.image, inner.image],
    ...[join(outer.mountPoint!, 'new'), join(inner.mountPoint!, 'new')],
  ])
    await assert.rejects(refuseSelf(stack, target, name(outer.device)), {
      code: 'SAME_DEVICE',
      message: /^Refusing to synchronize a device with itself: /,
    });
  assert.equal(await liesOn(stack, other.device, name(outer.device)), undefined);
  assert.equal(await liesOn(stack, other.image, name(outer.device)), undefined);
  assert.equal(await liesOn(stack, join(outer.directory, 'new'), name(outer.device)), undefined);
  // A file next to the image of the inner device does not belong to that device; the image itself does.
  assert.equal(await liesOn(stack, join(outer.mountPoint!, 'new'), name(inner.device)), undefined);
  assert.match((await liesOn(stack, inner.image, name(inner.device))) ?? '', /is the file behind/);
  assert.match((await liesOn(stack, outer.device, name(inner.device))) ?? '', /lies on/);

  await rm(inner.image);
  stack = await readStack();
  assert.deepEqual(order(outer.device), [inner.mountPoint, outer.mountPoint], 'by number, not by name');
});

test('partitions of one disk do not affect each other, the disk does', async (t) => {
  const disk = await makeLoop(t, { size: 100 * MiB, partitions: gpt });
  const stack = await readStack();
  const first = disk.partition(1).replace('/dev/', '');
  assert.equal(await liesOn(stack, disk.partition(2), first), undefined);
  assert.match((await liesOn(stack, disk.device, first)) ?? '', /lies on/);
  assert.match((await liesOn(stack, disk.partition(1), disk.device.replace('/dev/', ''))) ?? '', /lies on/);
});

test('btrfs, whose files have anonymous device numbers, is found by its source', async (t) => {
  const disk = await makeLoop(t, { size: 256 * MiB, filesystem: 'btrfs', mount: true });
  const devices = await listDevices();
  const device = await findDevice(devices, disk.mountPoint!);
  assert.equal(device.path, disk.device);
  assert.equal(device.backup.how, 'every block (btrfs: no used map)');
  const inside = await makeLoop(t, { size: 16 * MiB, directory: disk.mountPoint! });
  await exec('btrfs', ['subvolume', 'create', join(disk.mountPoint!, 'sub')]);
  await writeFile(join(disk.mountPoint!, 'sub/file'), 'x');
  const stack = await readStack();
  const source = device.kernelName;
  assert.match((await liesOn(stack, join(disk.mountPoint!, 'sub/file'), source)) ?? '', /lies on/);
  assert.match((await liesOn(stack, inside.device, source)) ?? '', /lies on/);
});

test('a device that is mounted only in another mount namespace is found, and can be reached', async (t) => {
  const disk = await makeLoop(t, { size: 32 * MiB, filesystem: 'ext4' });
  const place = join(disk.directory, 'private');
  await mkdir(place);
  const holder = spawn(
    'unshare',
    [
      '--mount',
      'sh',
      '-c',
      `${giveUpForeignMounts()} mount "$1" "$2" && echo mounted && exec sleep 600`,
      '-',
      disk.device,
      place,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  atEnd(t, async () => {
    holder.kill('SIGKILL');
    if (holder.exitCode === null && holder.signalCode === null) await once(holder, 'exit');
  });
  await once(holder.stdout, 'data');
  const device = await findDevice(await listDevices(), disk.device);
  assert.equal(device.mounts.length, 1);
  const [filesystem] = filesystemsOn(await readStack(), [device.kernelName]);
  assert.ok(filesystem !== undefined && filesystem.path.endsWith(place));
  await exec('fsfreeze', ['--freeze', filesystem.path]);
  await exec('fsfreeze', ['--unfreeze', filesystem.path]);
});
