import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fakeDevice } from '../../test/helpers/fake-device.ts';
import { MiB } from '../base/bytes.ts';
import type { OutputOf } from '../linux/program.ts';
import type { Device } from './device.ts';
import { bootAreas } from './disk-layout.ts';
import { LayoutNotes } from './layout-notes.ts';
import { machineLayout } from './machine-layout.ts';

function filesystem(type: string): NonNullable<Device['filesystem']> {
  return { type, uuid: 'u', label: undefined, blockSize: undefined, size: undefined };
}

async function rootWith(t: TestContext, files: Readonly<Record<string, string>>): Promise<string> {
  const root = await mkdtemp(join(tmpdir(), 'machine-layout-'));
  t.after(() => rm(root, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(files)) {
    await mkdir(dirname(join(root, name)), { recursive: true });
    await writeFile(join(root, name), text);
  }
  return root;
}

test('a machine with LVM, md and crypt is described with its own tools', async (t) => {
  const root = await rootWith(t, {
    'proc/cmdline': 'root=/dev/mapper/vg-root quiet\n',
    'etc/fstab': '/dev/vg/root / ext4 defaults 0 1\n',
    'etc/crypttab': 'secret UUID=1 none luks\n',
    'sys/firmware/efi/systab': '',
    'sys/block/sda/device/model': 'A disk  \n',
  });
  const run: OutputOf = async (program, args) => {
    if (program === 'vgcfgbackup') await writeFile(args.at(-1)!.replace('%s', 'vg'), 'vg {}\n');
    if (program === 'efibootmgr') return undefined;
    if (program === 'cryptsetup') throw new Error('cryptsetup exited with 1: no header');
    return `${program} ${args.join(' ')}\n`;
  };
  const layout = await machineLayout({
    root,
    run,
    devices: () =>
      Promise.resolve([
        fakeDevice('sda', { path: '/dev/nowhere/sda' }),
        fakeDevice('md0', { kind: 'md', filesystem: filesystem('LVM2_member') }),
        fakeDevice('sdb1', { kind: 'partition', filesystem: filesystem('crypto_LUKS'), lowers: ['sdb'] }),
      ]),
  });
  assert.equal(layout.boot, 'uefi');
  assert.equal(layout.command_line, 'root=/dev/mapper/vg-root quiet');
  assert.deepEqual(layout.files, {
    '/etc/fstab': '/dev/vg/root / ext4 defaults 0 1\n',
    '/etc/crypttab': 'secret UUID=1 none luks\n',
  });
  assert.deepEqual(layout.lvm, { vg: 'vg {}\n' });
  assert.equal(layout.md, 'mdadm --detail --scan\n');
  assert.deepEqual(layout.luks, {});
  assert.equal(layout.efi_boot, null);
  assert.equal(layout.disks.length, 1);
  assert.equal(layout.disks[0]!.model, 'A disk');
  assert.equal(layout.disks[0]!.table, null);
  assert.equal(layout.devices.length, 3);
  assert.deepEqual(layout.problems.map((problem) => problem.replace(/:.*/, '')).sort(), [
    '/dev/nowhere/sda',
    'cryptsetup',
    'efibootmgr is not installed',
  ]);
});

test('a machine that reports nothing gives an empty layout that lists the missing facts', async (t) => {
  const root = await rootWith(t, { 'etc/fstab': 'x'.repeat(200_000) });
  const layout = await machineLayout({
    root,
    run: () => Promise.resolve(undefined),
    devices: () => Promise.reject(new Error('no sysfs')),
  });
  assert.equal(layout.boot, 'bios');
  assert.deepEqual([layout.disks, layout.devices, layout.files, layout.lvm], [[], [], {}, {}]);
  assert.equal(layout.problems.length, 2);
});

test('data that is too long or too late is left out, and cancelling ends the work', async () => {
  const notes = new LayoutNotes(undefined);
  const half = 'x'.repeat(3 * MiB);
  assert.equal(notes.bounded('first', half), half);
  assert.equal(notes.bounded('second', half), '');
  assert.equal(notes.bounded('third', 'short'), 'short');
  assert.equal(await notes.attempt('fourth', () => Promise.reject(new Error('why')), 7), 7);
  assert.deepEqual(
    notes.problems.map((problem) => problem.slice(0, 11)),
    ['second: 314', 'fourth: why'],
  );
  const controller = new AbortController();
  const cancelled = new LayoutNotes(controller.signal);
  controller.abort(new Error('stop'));
  await assert.rejects(
    cancelled.attempt('fifth', () => Promise.resolve(1), 2),
    /stop/,
  );
});

test('a step that never answers is abandoned', async (t) => {
  t.mock.timers.enable({ apis: ['setTimeout'] });
  const notes = new LayoutNotes(undefined);
  const given = notes.attempt('a dead disk', () => new Promise<number>(() => undefined), 3);
  t.mock.timers.tick(10_000);
  assert.equal(await given, 3);
  assert.deepEqual(notes.problems, ['a dead disk: no answer in time']);
});

test('boot areas do not include the partition table', () => {
  const partition = (start: number, type: string) => ({
    number: 1,
    start,
    size: MiB,
    type,
    uuid: undefined,
    label: undefined,
    container: false,
  });
  assert.deepEqual(bootAreas({ kind: 'mbr', partitions: [partition(MiB, '0x83')] }, 512), [
    [0, 440],
    [512, MiB - 512],
  ]);
  assert.deepEqual(bootAreas({ kind: 'mbr', partitions: [partition(512, '0x83')] }, 512), [[0, 440]]);
  assert.deepEqual(bootAreas({ kind: 'mbr', partitions: [] }, 512), [[0, 440]]);
  const grub = partition(2 * MiB, '21686148-6449-6E6F-744E-656564454649');
  assert.deepEqual(bootAreas({ kind: 'gpt', partitions: [partition(MiB, 'other'), grub] }, 512), [
    [0, 440],
    [2 * MiB, MiB],
  ]);
});
