import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { isSuspended, resumeVolumes } from './resume.ts';

test('what is not suspended, or of another group, is left alone', async (t) => {
  const blocks = mkdtempSync(join(tmpdir(), 'resume-'));
  t.after(() => rmSync(blocks, { recursive: true }));
  const device = (kernelName: string, attributes: Record<string, string>) => {
    mkdirSync(join(blocks, kernelName, 'dm'), { recursive: true });
    for (const [name, value] of Object.entries(attributes))
      writeFileSync(join(blocks, kernelName, 'dm', name), `${value}\n`);
  };
  mkdirSync(join(blocks, 'sda'));
  device('dm-0', { name: 'ours', uuid: 'LVM-aaaabbbb', suspended: '0' });
  device('dm-1', { name: 'theirs', uuid: 'LVM-cccc', suspended: '1' });
  device('dm-2', { name: 'crypt', uuid: 'CRYPT-LUKS2-aaaa', suspended: '1' });
  assert.deepEqual([isSuspended('dm-0', blocks), isSuspended('dm-1', blocks)], [false, true]);
  assert.deepEqual(await resumeVolumes('aaaa', blocks), []);
});
