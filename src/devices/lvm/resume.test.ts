import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { begunBelow, isSuspended, resumeVolumes, suspendedOf } from './resume.ts';

interface Made {
  readonly name: string;
  readonly uuid: string;
  readonly suspended: boolean;
  readonly slaves?: readonly string[];
  readonly holders?: readonly string[];
  /** Sectors of 512 bytes; 0 without a table. */
  readonly size?: number;
}

/** Makes a directory like /sys/block. */
function blocksOf(t: TestContext, devices: Readonly<Record<string, Made>>): string {
  const blocks = mkdtempSync(join(tmpdir(), 'resume-'));
  t.after(() => rmSync(blocks, { recursive: true }));
  mkdirSync(join(blocks, 'sda'));
  for (const [kernelName, made] of Object.entries(devices)) {
    const { name, uuid, suspended, slaves = [], holders = [], size = 8 } = made;
    const directory = join(blocks, kernelName);
    mkdirSync(join(directory, 'dm'), { recursive: true });
    writeFileSync(join(directory, 'dm', 'name'), `${name}\n`);
    writeFileSync(join(directory, 'dm', 'uuid'), `${uuid}\n`);
    writeFileSync(join(directory, 'dm', 'suspended'), suspended ? '1\n' : '0\n');
    writeFileSync(join(directory, 'size'), `${size}\n`);
    for (const each of slaves) mkdirSync(join(directory, 'slaves', each), { recursive: true });
    for (const each of holders) mkdirSync(join(directory, 'holders', each), { recursive: true });
  }
  return blocks;
}

test('volumes that are not suspended, or are of another group, are left alone', async (t) => {
  const blocks = blocksOf(t, {
    'dm-0': { name: 'ours', uuid: 'LVM-aaaabbbb', suspended: false },
    'dm-1': { name: 'theirs', uuid: 'LVM-cccc', suspended: true },
    'dm-2': { name: 'crypt', uuid: 'CRYPT-LUKS2-aaaa', suspended: true },
  });
  assert.deepEqual([isSuspended('dm-0', blocks), isSuspended('dm-1', blocks)], [false, true]);
  assert.deepEqual(await resumeVolumes('aaaa', () => assert.fail('nothing is to be waited for'), blocks), []);
});

test('lower devices come first, whatever their numbers', (t) => {
  const blocks = blocksOf(t, {
    'dm-0': { name: 'vg-ours', uuid: 'LVM-aaaa1', suspended: true, slaves: ['dm-10'] },
    'dm-2': { name: 'vg-snap', uuid: 'LVM-aaaa2', suspended: true, slaves: ['dm-10', 'dm-9'] },
    'dm-9': { name: 'vg-snap-cow', uuid: 'LVM-aaaa3-cow', suspended: true, slaves: ['sda'] },
    'dm-10': { name: 'vg-ours-real', uuid: 'LVM-aaaa1-real', suspended: true, slaves: ['sda'] },
    'dm-11': { name: 'vg-other', uuid: 'LVM-aaaa4', suspended: false, slaves: ['sda'] },
  });
  const order = suspendedOf('aaaa', blocks);
  assert.deepEqual([...order].sort(), ['vg-ours', 'vg-ours-real', 'vg-snap', 'vg-snap-cow']);
  assert.deepEqual(order.slice(0, 2).sort(), ['vg-ours-real', 'vg-snap-cow']);
});

test('a device that was only begun below a volume has no table, and no device lies on it', (t) => {
  const real = { name: 'vg-ours-real', uuid: 'LVM-aaaa1-real', suspended: true };
  const found = (device: Partial<Made>, uuid = 'LVM-aaaa1'): string | undefined =>
    begunBelow(uuid, blocksOf(t, { 'dm-3': { ...real, ...device } }));
  assert.equal(found({ size: 0 }), 'vg-ours-real');
  assert.equal(found({ size: 8 }), undefined);
  assert.equal(found({ size: 0, holders: ['dm-0'] }), undefined);
  assert.equal(found({ size: 0 }, 'LVM-aaaa2'), undefined);
  assert.equal(found({ size: 0, uuid: 'LVM-aaaa1' }), undefined);
});
