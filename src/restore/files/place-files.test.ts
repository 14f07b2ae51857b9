import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { holdDirectory } from '../../base/held-directory.ts';
import { Staging, placeFiles } from './place-files.ts';

function scratch(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'place-files-'));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

test('files whose names are not UTF-8 are put into place', async (t) => {
  const destination = scratch(t);
  const held = await holdDirectory(destination);
  t.after(() => held.close());
  // "é" in Latin-1.
  const name = Buffer.from('caf\xe9', 'latin1');
  mkdirSync(join(destination, 'sub'));
  const staging = await Staging.make(held);
  const tree = staging.tree.path;
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/`), name]), 'content');
  mkdirSync(`${tree}/sub`);
  writeFileSync(Buffer.concat([Buffer.from(`${tree}/sub/`), name]), 'content');
  await placeFiles(staging.tree, held, { overwrite: true, copy: () => Promise.reject(new Error('no copy')) });
  await staging.remove();
  for (const directory of [destination, join(destination, 'sub')])
    assert.ok(readdirSync(directory, 'buffer').some((each) => each.equals(name)));
});
