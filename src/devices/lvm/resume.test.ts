import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { isSuspended, resumeVolumes, suspendedOf } from './resume.ts';

interface Made {
  readonly name: string;
  readonly uuid: string;
  readonly suspended: boolean;
  readonly slaves?: readonly string[];
}

/** As in /sys/block. */
function blocksOf(t: TestContext, devices: Readonly<Record<string, Made>>): string {
  const blocks = mkdtempSync(join(tmpdir(), 'resume-'));
  t.after(() => rmSync(blocks, { recursive: true }));
  mkdirSync(join(blocks, 'sda'));
  for (const [kernelName, { name, uuid, suspended, slaves = [] }] of Object.entries(devices)) {
    const directory = join(blocks, kernelName);
    mkdirSync(join(directory, 'dm'), { recursive: true });
    writeFileSync(join(directory, 'dm', 'name'), `${name}\n`);
    writeFileSync(join(directory, 'dm', 'uuid'), `${uuid}\n`);
    writeFileSync(join(directory, 'dm', 'suspended'), suspended ? '1\n' : '0\n');
    for (const each of slaves) mkdirSync(join(directory, 'slaves', each), { recursive: true });
  }
  return blocks;
}

test('what is not suspended, or of another group, is left alone', async (t) => {
  const blocks = blocksOf(t, {
    'dm-0': { name: 'ours', uuid: 'LVM-aaaabbbb', suspended: false },
    'dm-1': { name: 'theirs', uuid: 'LVM-cccc', suspended: true },
    'dm-2': { name: 'crypt', uuid: 'CRYPT-LUKS2-aaaa', suspended: true },
  });
  assert.deepEqual([isSuspended('dm-0', blocks), isSuspended('dm-1', blocks)], [false, true]);
  assert.deepEqual(await resumeVolumes('aaaa', () => assert.fail('nothing is to be waited for'), blocks), []);
});

test('those below come first, whatever their numbers', (t) => {
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
