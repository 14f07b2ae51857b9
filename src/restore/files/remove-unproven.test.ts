import assert from 'node:assert/strict';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../base/bytes.ts';
import { HeldDirectory } from '../../base/held-directory.ts';
import { removeUnproven } from './remove-unproven.ts';

test('only files that are equal to their originals stay', async (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'unproven-'));
  t.after(() => rmSync(scratch, { recursive: true }));
  const content = Buffer.alloc(2 * MiB + 1, 'content');
  const bytes = Buffer.from('caf\xe9', 'latin1');
  for (const side of ['original', 'copy']) {
    const sub = join(scratch, side, 'sub');
    mkdirSync(sub, { recursive: true });
    for (const name of ['whole', 'cut', 'empty', 'altered']) writeFileSync(join(sub, name), content);
    writeFileSync(Buffer.concat([Buffer.from(`${sub}/`), bytes]), side);
    for (const name of ['link', 'other link']) symlinkSync('whole', join(sub, name));
    writeFileSync(join(sub, 'nothing'), '');
  }
  const sub = join(scratch, 'copy/sub');
  truncateSync(join(sub, 'cut'), 2 * MiB);
  truncateSync(join(sub, 'empty'), 0);
  // The size is right, so only the content shows the difference.
  writeFileSync(join(sub, 'altered'), Buffer.concat([content.subarray(0, -1), Buffer.from([0])]));
  rmSync(join(sub, 'other link'));
  symlinkSync('elsewhere', join(sub, 'other link'));
  writeFileSync(join(sub, 'only here'), '');
  const [original, copy] = [
    await HeldDirectory.open(join(scratch, 'original')),
    await HeldDirectory.open(join(scratch, 'copy')),
  ];
  try {
    assert.equal(await removeUnproven(original, copy), 6);
  } finally {
    await original.close();
    await copy.close();
  }
  assert.deepEqual(readdirSync(sub).sort(), ['link', 'nothing', 'whole']);
});
