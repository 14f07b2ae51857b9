/** The identity of devices, in sysfs trees that this machine need not have. */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { after, test } from 'node:test';
import type { Device } from './device.ts';
import { deviceIdentity } from './identity.ts';

const sys = mkdtempSync(join(tmpdir(), 'identity-'));
after(() => rmSync(sys, { recursive: true }));

function put(path: string, text: string): void {
  mkdirSync(dirname(join(sys, 'block', path)), { recursive: true });
  writeFileSync(join(sys, 'block', path), `${text}\n`);
}

function identity(kind: Device['kind'], kernelName: string, disk?: string): Promise<string | undefined> {
  const partition =
    disk === undefined
      ? undefined
      : ({
          disk: `/dev/${disk}`,
          number: 2,
          start: 0,
          uuid: 'same',
          label: undefined,
          table: 'gpt',
        } as const);
  const lowers = disk === undefined ? [] : [disk];
  return deviceIdentity({ kind, kernelName, partition, lowers, backingFile: undefined }, sys);
}

test('disks are told apart by hardware names, partitions by number, volumes by device-mapper UUID', async () => {
  put('sda/device/wwid', 'naa.5000c500a1b2c3d4');
  put('nvme0n1/wwid', 'eui.0025385b71b0a1c2');
  put('vda/serial', 'disk-1   ');
  put('dm-0/dm/uuid', 'LVM-abcdef');
  put('loop7/loop/backing_file', '/srv/a b.img');
  put('loop7/loop/offset', '1048576');
  assert.equal(await identity('disk', 'sda'), 'disk naa.5000c500a1b2c3d4');
  assert.equal(await identity('partition', 'sda2', 'sda'), 'disk naa.5000c500a1b2c3d4 partition 2');
  assert.equal(await identity('partition', 'nvme0n1p2', 'nvme0n1'), 'disk eui.0025385b71b0a1c2 partition 2');
  assert.equal(await identity('disk', 'vda'), 'disk disk-1');
  assert.equal(await identity('dm', 'dm-0'), 'dm LVM-abcdef');
  assert.equal(await identity('loop', 'loop7'), 'file /srv/a b.img at 1048576');
  assert.equal(await identity('partition', 'loop7p2', 'loop7'), 'file /srv/a b.img at 1048576 partition 2');
});

test('disks that report no name, or the name of another disk, have no identity', async () => {
  put('vdb/size', '1');
  put('sdx/device/serial', '0123456789');
  put('sdy/device/serial', '0123456789');
  put('dm-1/dm/uuid', '');
  for (const name of ['vdb', 'sdx', 'sdy']) assert.equal(await identity('disk', name), undefined);
  assert.equal(await identity('dm', 'dm-1'), undefined);
  assert.equal(await identity('partition', 'sdx2', 'sdx'), undefined);
});
