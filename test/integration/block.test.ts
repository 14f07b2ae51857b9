/** Proves the direct source against dd's view of a device, and the file target against stat, cmp and qemu-img. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { openDeviceSource } from '../../src/block/device-source.ts';
import { openFileTarget } from '../../src/block/file-target.ts';
import { targetContract } from '../contracts/target.contract.ts';
import { alignedBuffer } from '../../src/linux/aligned.ts';
import { exec } from '../helpers/exec.ts';
import type { Extent } from '../../src/base/extents.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { makeLoop, umount } from '../helpers/loop.ts';

test('a device and an image file give the same bytes as dd, at any alignment', async (t) => {
  const disk = await makeLoop(t, { size: 8 * MiB + 512 });
  const contents = randomBytes(8 * MiB + 512);
  const input = join(disk.directory, 'input');
  await writeFile(input, contents);
  await exec('dd', [`if=${input}`, `of=${disk.device}`, 'bs=1M', 'conv=fsync', 'status=none']);

  for (const path of [disk.device, disk.image]) {
    const source = await openDeviceSource(path);
    assert.equal(source.size, contents.length);
    assert.equal(source.sectorSize, 512);
    assert.equal(source.direct, true);
    for (const [offset, length] of [
      [0, contents.length],
      [1, 1],
      [511, 2],
      [4095, 8193],
      [3 * MiB - 7, 2 * MiB + 13],
      [contents.length - 3, 3],
      [contents.length, 0],
    ] as const)
      assert.deepEqual(
        Buffer.from(await source.readAt(offset, length)),
        contents.subarray(offset, offset + length),
      );
    const tail = alignedBuffer(4096 + 512);
    source.readInto(tail, 8 * MiB - 4096);
    assert.deepEqual(tail, contents.subarray(8 * MiB - 4096));
    await assert.rejects(source.readAt(contents.length, 1), RangeError);
    await source.close();
  }
});

test('a loop device of 4096-byte sectors whose size is not a multiple of them ends at its last whole one', async (t) => {
  const disk = await makeLoop(t, { size: MiB + 1536, sectorSize: 4096 });
  const contents = randomBytes(MiB + 1536);
  const source = await openDeviceSource(disk.device);
  assert.equal(source.sectorSize, 4096);
  assert.equal(source.size, MiB);
  const file = await open(disk.image, 'r+');
  await file.write(contents);
  await file.close();
  assert.deepEqual(Buffer.from(await source.readAt(0, source.size)), contents.subarray(0, source.size));
  const buffer = alignedBuffer(source.size);
  source.readInto(buffer, 0);
  assert.deepEqual(buffer, contents.subarray(0, source.size));
  await source.close();
});

test('a direct read sees data that the page cache of the device does not have', async (t) => {
  const disk = await makeLoop(t, { size: 320 * MiB, filesystem: 'xfs', mount: true });
  const source = await openDeviceSource(disk.device);
  const cached = await openDeviceSource(disk.device, { direct: false });
  assert.equal(cached.direct, false);
  await cached.readAt(0, 64 * MiB);
  await writeFile(join(disk.mountPoint!, 'file'), Buffer.alloc(MiB, 'marker'), { flush: true });
  const bytes = Buffer.from(await source.readAt(0, 64 * MiB));
  assert.ok(bytes.includes(Buffer.alloc(4096, 'marker').subarray(0, 4092)));
  await source.close();
  await cached.close();
});

test('a device that shrinks below an open source is reported as gone, not as a read error', async (t) => {
  const disk = await makeLoop(t, { size: 4 * MiB });
  const source = await openDeviceSource(disk.device);
  await truncate(disk.image, 2 * MiB);
  await exec('losetup', ['--set-capacity', disk.device]);
  await assert.rejects(source.readAt(3 * MiB, 4096), {
    code: 'DEVICE_GONE',
    message: /4194304.*2097152/,
  });
  await source.close();
});

test('an unreadable source is refused with the reason', async () => {
  await assert.rejects(openDeviceSource('/dev/no-such-device'), { code: 'DEVICE_NOT_FOUND' });
  await assert.rejects(openDeviceSource('/dev/null'), { code: 'FILE_ERROR' });
  await assert.rejects(openDeviceSource('/tmp'), { code: 'FILE_ERROR' });
});

test('a file on tmpfs is read through the page cache if O_DIRECT is refused, or directly', async (t) => {
  const disk = await makeLoop(t, { size: MiB + 3, directory: '/dev/shm', attach: false });
  const contents = randomBytes(MiB + 3);
  await writeFile(disk.image, contents);
  const source = await openDeviceSource(disk.image);
  assert.deepEqual(Buffer.from(await source.readAt(5, MiB - 2)), contents.subarray(5, MiB + 3));
  await source.close();
  assert.deepEqual(await readFile(disk.image), contents);
});

targetContract('loop device', async () => {
  const disk = await makeLoop({ after }, { size: 5 * MiB + 1024 });
  const target = await openFileTarget(disk.device);
  const close = async (): Promise<void> => {
    await target.close();
    await disk.remove();
  };
  return { target, close };
});

test('an image file holds the data that was written, with the holes that qemu-img finds', async (t) => {
  const { directory } = await makeLoop(t, { size: MiB, attach: false });
  const path = join(directory, 'target');
  const expected = Buffer.alloc(32 * MiB);
  const target = await openFileTarget(path, { create: { size: expected.length } });
  for (const [offset, length] of [
    [0, MiB],
    [5 * MiB, 4 * MiB],
    [31 * MiB, MiB],
  ] as const) {
    const data = randomBytes(length);
    expected.set(data, offset);
    await target.write(offset, data);
  }
  expected.fill(0, 6 * MiB, 8 * MiB);
  await target.writeZeroes(6 * MiB, 2 * MiB, { hole: true });
  await target.flush();

  const { stdout } = await exec('qemu-img', ['map', '-f', 'raw', '--output=json', path]);
  const map = JSON.parse(stdout) as { start: number; length: number; zero: boolean }[];
  const zeros: Extent[] = [];
  for await (const extent of target.zeroExtents(0, target.size)) zeros.push(extent);
  assert.deepEqual(
    zeros,
    map.filter(({ zero }) => zero).map(({ start, length }) => ({ offset: start, length })),
  );
  assert.deepEqual(zeros, [
    { offset: MiB, length: 4 * MiB },
    { offset: 6 * MiB, length: 2 * MiB },
    { offset: 9 * MiB, length: 22 * MiB },
  ]);
  assert.ok((await stat(path)).blocks * 512 < 5 * MiB);
  await target.close();
  assert.ok((await readFile(path)).equals(expected));
});

test('zeroes on a device release space below only if holes are allowed', async (t) => {
  const disk = await makeLoop(t, { size: 8 * MiB });
  const target = await openFileTarget(disk.device);
  const room = async (): Promise<number> => (await stat(disk.image)).blocks * 512;
  await target.write(0, Buffer.alloc(8 * MiB, 1));
  await target.flush();
  assert.ok((await room()) >= 8 * MiB);
  await target.writeZeroes(0, 4 * MiB, { hole: false });
  await target.flush();
  assert.ok((await room()) >= 8 * MiB);
  await target.writeZeroes(0, 4 * MiB, { hole: true });
  await target.flush();
  assert.ok((await room()) < 5 * MiB);
  await target.close();
  await exec('cmp', ['--bytes', String(4 * MiB), disk.device, '/dev/zero']);
});

test('a mounted device, and the disk of a mounted partition, are refused as targets', async (t) => {
  const plain = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4', mount: 'mount point' });
  await assert.rejects(openFileTarget(plain.device), {
    code: 'DEVICE_BUSY',
    message: `${plain.device} cannot be written: it is mounted on ${plain.mountPoint!}`,
  });
  const disk = await makeLoop(t, { size: 32 * MiB, partitions: 'label: gpt\n,8M\n,8M\n' });
  await exec('mkfs.ext4', ['-q', disk.partition(2)]);
  const mountPoint = join(disk.directory, 'mnt');
  await exec('mkdir', [mountPoint]);
  await exec('mount', [disk.partition(2), mountPoint]);
  atEnd(t, () => umount(mountPoint));
  await assert.rejects(openFileTarget(disk.device), { code: 'DEVICE_BUSY', message: /p2 is mounted on/ });
  await (await openFileTarget(disk.partition(1))).close();
});

test('a device that is being written cannot be mounted', async (t) => {
  const disk = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4' });
  const target = await openFileTarget(disk.device);
  await assert.rejects(exec('mount', [disk.device, disk.directory]));
  await assert.rejects(openFileTarget(disk.device), { code: 'DEVICE_BUSY' });
  await (await openFileTarget(disk.device, { exclusive: false })).close();
  await target.close();
});

test('a read-only device, and a file on a read-only filesystem, are refused as such', async (t) => {
  const disk = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4', mount: true });
  await writeFile(join(disk.mountPoint!, 'image'), 'x');
  await exec('mount', ['-o', 'remount,ro', disk.mountPoint!]);
  await assert.rejects(openFileTarget(join(disk.mountPoint!, 'image')), { code: 'TARGET_READ_ONLY' });
  const readOnly = await makeLoop(t, { size: 16 * MiB, readOnly: true });
  await assert.rejects(openFileTarget(readOnly.device), { code: 'TARGET_READ_ONLY' });
});

test('a full filesystem under an image is reported as TARGET_FULL', async (t) => {
  const disk = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4', mount: true });
  const target = await openFileTarget(join(disk.mountPoint!, 'image'), { create: { size: 64 * MiB } });
  const fill = async (): Promise<void> => {
    for (let at = 0; at < target.size; at += MiB) await target.write(at, randomBytes(MiB));
    await target.flush();
  };
  await assert.rejects(fill(), { code: 'TARGET_FULL', message: /no room left/ });
  await target.close();
});
