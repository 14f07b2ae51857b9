/** Proves the direct source against dd's view of a device, and the file target against stat, cmp and qemu-img. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { openDeviceSource } from '../../src/block/device-source.ts';
import { alignedBuffer } from '../../src/linux/aligned.ts';
import { exec } from '../helpers/exec.ts';
import { makeLoop } from '../helpers/loop.ts';

test('a device and an image file read as dd reads them, at any alignment', async (t) => {
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

test('a loop device of 4096-byte sectors whose size is no multiple of them ends at its last whole one', async (t) => {
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

test('a direct read sees what the page cache of the device does not', async (t) => {
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

test('a device that shrinks below an open source is gone, not a read error', async (t) => {
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

test('what cannot be read at all is refused with the reason', async () => {
  await assert.rejects(openDeviceSource('/dev/no-such-device'), { code: 'DEVICE_NOT_FOUND' });
  await assert.rejects(openDeviceSource('/dev/null'), { code: 'FILE_ERROR' });
  await assert.rejects(openDeviceSource('/tmp'), { code: 'FILE_ERROR' });
});

test('a file on tmpfs reads through the page cache where O_DIRECT is refused, or directly', async (t) => {
  const disk = await makeLoop(t, { size: MiB + 3, directory: '/dev/shm', attach: false });
  const contents = randomBytes(MiB + 3);
  await writeFile(disk.image, contents);
  const source = await openDeviceSource(disk.image);
  assert.deepEqual(Buffer.from(await source.readAt(5, MiB - 2)), contents.subarray(5, MiB + 3));
  await source.close();
  assert.deepEqual(await readFile(disk.image), contents);
});
