import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { writeSysfs } from '../../test/helpers/sysfs-tree.ts';
import { readBlockDevices } from './sysfs.ts';

test('on a machine with 208 disks, several jobs need only few descriptors to read sysfs', async (t) => {
  const sys = mkdtempSync(join(tmpdir(), 'sysfs-test-'));
  t.after(() => rmSync(sys, { recursive: true }));
  const disks = Array.from({ length: 208 }, (_, n) => ({ name: `vd${n}`, dev: `8:${n}`, size: 2048 }));
  writeSysfs(sys, disks);
  const before = readdirSync('/proc/self/fd').length;
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, readdirSync('/proc/self/fd').length - before);
  }, 1);
  const readings = await Promise.all(Array.from({ length: 4 }, () => readBlockDevices(sys)));
  clearInterval(watch);
  assert.ok(readings.every((devices) => devices.length === 208));
  assert.ok(most > 0 && most < 100, `${most} descriptors at once`);
});

test('a loop device without a file is left out', async (t) => {
  const sys = mkdtempSync(join(tmpdir(), 'sysfs-test-'));
  t.after(() => rmSync(sys, { recursive: true }));
  writeSysfs(sys, [
    { name: 'loop1', dev: '7:1', size: 8, attributes: { 'loop/backing_file': '/a (deleted)' } },
    { name: 'loop2', dev: '7:2', size: 0 },
    { name: 'vda', dev: '8:0', size: 8 },
  ]);
  const devices = await readBlockDevices(sys);
  assert.deepEqual(
    devices.map(({ name, loop }) => [name, loop?.file]),
    [
      ['loop1', '/a'],
      ['vda', undefined],
    ],
  );
});
