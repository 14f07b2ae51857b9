/**
 * Proves that the machine layout in a recovery point is enough for standard tools. sfdisk makes the same
 * table from it, LVM makes the same volume group, and with the boot areas written back the disk begins with
 * the same bytes.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { open, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { listDevices } from '../../src/devices/inventory.ts';
import { machineLayout } from '../../src/devices/machine-layout.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { type LoopDisk, makeLoop } from '../helpers/loop.ts';

const tables = {
  gpt: 'label: gpt\nsize=4M, type=21686148-6449-6E6F-744E-656564454649, name=grub\nsize=20M, name="the data"\n',
  mbr: 'label: dos\nsize=10M, type=83, bootable\nsize=20M, type=5\nsize=5M, type=82\n',
};

/** The place of a BIOS boot loader: in the MBR, and behind it or in the first partition. */
const loader = { gpt: MiB, mbr: 512 };

for (const [kind, partitions] of Object.entries(tables) as ['gpt' | 'mbr', string][])
  test(`a ${kind} disk is made again from the layout in the point`, async (t) => {
    const disk = await makeLoop(t, { size: 64 * MiB, partitions });
    const code = randomBytes(440);
    const core = randomBytes(40_000);
    await writeAt(disk.device, [
      [0, code],
      [loader[kind], core],
    ]);

    const layout = await machineLayout({ root: '/nonexistent', devices: () => devicesOf(disk) });
    const kept = layout.disks.find(({ path }) => path === disk.device);
    assert.ok(kept?.table, layout.problems.join('\n'));
    const { partitiontable } = JSON.parse((await exec('sfdisk', ['--json', disk.device])).stdout) as {
      partitiontable: { partitions: { start: number; size: number }[] };
    };
    assert.equal(kept.table.kind, kind);
    assert.deepEqual(
      kept.table.partitions.map(({ start, size }) => [start, size]),
      partitiontable.partitions.map(({ start, size }) => [start * 512, size * 512]),
    );

    const again = await makeLoop(t, { size: 64 * MiB, attach: false });
    await exec('sfdisk', ['--quiet', again.image], { input: kept.sfdisk! });
    await writeAt(
      again.image,
      kept.boot_areas.map(({ offset, data }) => [offset, Buffer.from(data, 'base64')]),
    );
    const dumps = await Promise.all(
      [disk.device, again.image].map(async (path) => (await exec('sfdisk', ['--dump', path])).stdout),
    );
    assert.equal(
      dumps[1]!.replaceAll(again.image, ''),
      dumps[0]!.replaceAll(`${disk.device}p`, '').replaceAll(disk.device, ''),
    );
    assert.deepEqual(await head(again.image), await head(disk.device));
  });

/** Prevents copies in /etc/lvm. */
const quiet = ['--config', 'devices{use_devicesfile=0} backup{backup=0 archive=0}'];

test('a volume group is made again from the layout in the point', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB });
  const group = `layout${process.pid}`;
  await exec('pvcreate', ['--yes', disk.device]);
  await exec('vgcreate', [...quiet, group, disk.device]);
  atEnd(t, async () => {
    await exec('vgremove', ['--force', ...quiet, group], { allow: [5] });
  });
  const show = async (): Promise<string> =>
    (await exec('vgs', ['--noheadings', '-o', 'vg_uuid,vg_extent_size,pv_uuid', group])).stdout;
  const before = await show();

  const layout = await machineLayout({ devices: () => devicesOf(disk) });
  const kept = layout.lvm[group];
  assert.ok(kept, layout.problems.join('\n'));
  const text = join(disk.directory, 'kept');
  await writeFile(text, kept);
  await exec('dd', ['if=/dev/zero', `of=${disk.device}`, 'bs=1M', 'count=2', 'conv=fsync']);
  await exec('vgs', [group], { allow: [5] });
  const id = /pv0 \{\s+id = "([^"]+)"/.exec(kept)![1]!;
  await exec('pvcreate', ['--yes', '--uuid', id, '--restorefile', text, disk.device]);
  await exec('vgcfgrestore', ['--file', text, ...quiet, group]);
  assert.equal(await show(), before);
});

test('the header of an encrypted device is described, without its keys', async (t) => {
  const disk = await makeLoop(t, { size: 32 * MiB });
  await exec(
    'cryptsetup',
    ['luksFormat', '--batch-mode', '--pbkdf', 'pbkdf2', '--pbkdf-force-iterations', '1000', disk.device, '-'],
    { input: 'passphrase' },
  );
  const layout = await machineLayout({ devices: () => devicesOf(disk) });
  const uuid = (await exec('cryptsetup', ['luksUUID', disk.device])).stdout.trim();
  assert.match(layout.luks[disk.device] ?? '', new RegExp(`UUID:\\s+${uuid}`));
});

async function devicesOf(disk: LoopDisk): ReturnType<typeof listDevices> {
  return (await listDevices()).filter(({ path }) => path.startsWith(disk.device));
}

async function writeAt(path: string, parts: readonly [offset: number, data: Buffer][]): Promise<void> {
  const file = await open(path, 'r+');
  try {
    for (const [offset, data] of parts) await file.write(data, 0, data.length, offset);
    await file.sync();
  } finally {
    await file.close();
  }
}

async function head(path: string): Promise<Buffer> {
  return (await readFile(path)).subarray(0, 2 * MiB);
}
