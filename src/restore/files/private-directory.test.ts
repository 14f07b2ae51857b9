import assert from 'node:assert/strict';
import { chmodSync, chownSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { holdDirectory } from '../../base/held-directory.ts';
import { isAsMade, othersMayWrite, provePrivate } from './private-directory.ts';

const owned = (uid: number, mode: number): { uid: number; mode: number } => ({ uid, mode });

test('a directory is trusted if it has the owner and mode of a new file of the same place', () => {
  // On ext4 and similar filesystems, any difference shows that it is another directory.
  assert.ok(isAsMade(owned(0, 0o40700), owned(0, 0o100600)));
  assert.ok(!isAsMade(owned(0, 0o40755), owned(0, 0o100600)));
  assert.ok(!isAsMade(owned(1000, 0o40700), owned(0, 0o100600)));
  // FAT and CIFS have one owner and one mode for all files.
  assert.ok(isAsMade(owned(0, 0o40755), owned(0, 0o100755)));
  assert.ok(!isAsMade(owned(1000, 0o40755), owned(0, 0o100755)));
  // NFS with root_squash keeps modes.
  assert.ok(isAsMade(owned(65534, 0o40700), owned(65534, 0o100600)));
  assert.ok(!isAsMade(owned(65534, 0o40777), owned(65534, 0o100600)));
});

test('owners and modes that let other users write', () => {
  for (const mode of [0o40700, 0o40755]) {
    assert.equal(othersMayWrite(owned(0, mode), 0), false);
    assert.equal(othersMayWrite(owned(65534, mode), 0), false);
    assert.equal(othersMayWrite(owned(1000, mode), 0), true);
  }
  for (const mode of [0o40770, 0o40757]) assert.equal(othersMayWrite(owned(0, mode), 0), true);
});

test('a directory that replaced the new one is refused', async (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'private-'));
  t.after(() => rmSync(scratch, { recursive: true }));
  const place = await holdDirectory(scratch);
  t.after(() => place.close());
  const prove = async (make: (path: string) => void): Promise<void> => {
    const path = join(scratch, 'made');
    mkdirSync(path, { mode: 0o700 });
    make(path);
    const directory = await place.child('made');
    try {
      await provePrivate(place, directory);
    } finally {
      await directory.close();
      rmSync(path, { recursive: true });
    }
    assert.deepEqual(readdirSync(scratch), []);
  };
  const replaced = { code: 'FILE_ERROR', message: /made was replaced by another process/ };
  await prove(() => undefined);
  await assert.rejects(
    prove((path) => chmodSync(path, 0o755)),
    replaced,
  );
  await assert.rejects(
    prove((path) => writeFileSync(join(path, 'entry'), '')),
    replaced,
  );
  if (process.geteuid?.() === 0)
    await assert.rejects(
      prove((path) => chownSync(path, 1000, 1000)),
      replaced,
    );
});
