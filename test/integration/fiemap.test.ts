/**
 * Proves that the reported places of a file on its device hold the file's bytes. Needs root, e2fsprogs,
 * xfsprogs.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { closeSync, mkdirSync, openSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { test } from 'node:test';
import { Bitmap } from '../../src/base/bitmap.ts';
import { MiB } from '../../src/base/bytes.ts';
import { openDeviceSource } from '../../src/block/device-source.ts';
import { createLog } from '../../src/base/log.ts';
import { markBootLoaderFiles } from '../../src/daemon/reboot/boot-loader.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { fileExtents } from '../../src/linux/fiemap.ts';
import { TrackerRegistry } from '../../src/tracking/tracker-registry.ts';
import type { Tracker } from '../../src/tracking/tracker.ts';
import { fakeTracker } from '../helpers/fake-tracker.ts';
import { makeLoop } from '../helpers/loop.ts';

for (const filesystem of ['ext4', 'xfs'])
  test(`${filesystem}: blocks that GRUB writes past the filesystem count as dirty`, async (t) => {
    const disk = await makeLoop(t, {
      size: filesystem === 'xfs' ? 320 * MiB : 64 * MiB,
      filesystem,
      mount: true,
    });
    const content = randomBytes(1024);
    const path = join(disk.mountPoint!, 'boot/grub/grubenv');
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, content);
    // A link to another filesystem does not belong to this device.
    mkdirSync(join(disk.mountPoint!, 'grub2'));
    symlinkSync('/etc/hostname', join(disk.mountPoint!, 'grub2/grubenv'));
    const fd = openSync(path, 'r');
    const extents = fileExtents(fd);
    closeSync(fd);
    assert.equal(extents.length, 1);

    const device = (await listDevices()).find((each) => each.path === disk.device)!;
    const marked = new Bitmap(device.size, 512);
    const fake = fakeTracker();
    const trackers = new TrackerRegistry([
      {
        ...fake,
        leftSomething: () => true,
        open: async (): Promise<Tracker> => ({
          ...(await fake.open()),
          mark: (_, places) => {
            for (const { offset, length } of places) marked.mark(offset, length);
            return Promise.resolve();
          },
        }),
      },
    ]);
    const going = { device: device.path, uuid: device.filesystem!.uuid!, epoch: 'e', why: null };
    const outcome = { shutdown: null, why: null, devices: [going] };
    const log = createLog({ write: () => true } as never, 'silent');
    await markBootLoaderFiles(outcome, listDevices, trackers, log);
    assert.deepEqual([...marked.extents()], extents);

    const source = await openDeviceSource(disk.device);
    const bytes = await source.readAt(extents[0]!.offset, 1024);
    await source.close();
    assert.ok(content.equals(bytes), 'the file is there on the device');
  });
