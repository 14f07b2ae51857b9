/**
 * Data that cannot be read is never treated as absent if a decision depends on it. The tests put directories
 * in the place of files and files in the place of directories. No code expects the resulting errors (EISDIR,
 * ENOTDIR).
 */
import assert from 'node:assert/strict';
import fs, {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { undoMaking } from '../../src/backup/copy/targets.ts';
import { makeDirectory } from '../../src/base/files.ts';
import { silentLog } from '../../src/base/log.ts';
import { readOutcome } from '../../src/daemon/reboot/outcome.ts';
import { readRecords as readSnapshotRecords } from '../../src/devices/lvm/records.ts';
import { removeLeftoverSnapshots } from '../../src/devices/lvm/snapshot.ts';
import { thawLeftovers } from '../../src/freeze/leftovers.ts';
import { recordPath } from '../../src/freeze/freeze-record.ts';
import { isAlive } from '../../src/linux/process.ts';
import { readRecords as readMountRecords } from '../../src/restore/mount/mount-record.ts';
import { unseenHolder } from '../../src/tracking/blktrace/identity.ts';

function folder(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'absence-'));
  t.after(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

test('a process whose file cannot be read does not count as ended', async (t) => {
  const proc = folder(t);
  mkdirSync(join(proc, '5', 'stat'), { recursive: true });
  assert.equal(await isAlive({ pid: 4, startTime: 1 }, proc), false);
  await assert.rejects(isAlive({ pid: 5, startTime: 1 }, proc), { code: 'EISDIR' });
});

test('an unreadable record of a freeze is kept and reported as a failure', async (t) => {
  const run = folder(t);
  mkdirSync(recordPath(run, 7));
  const { failures } = await thawLeftovers(run, silentLog());
  assert.match(failures.join(), /freeze-7\.json names are not known \(EISDIR\)/);
  assert.ok(existsSync(recordPath(run, 7)));
});

test('holders that cannot be listed may hide writes', (t) => {
  const place = folder(t);
  assert.equal(unseenHolder(place), undefined);
  writeFileSync(join(place, 'holders'), '');
  assert.match(unseenHolder(place) ?? '', /cannot be listed: ENOTDIR/);
});

test('an image that could not be read does not count as made by the job', async (t) => {
  const image = join(folder(t), 'image');
  writeFileSync(image, 'years of it');
  t.mock.method(fs.promises, 'stat', (() =>
    Promise.reject(
      Object.assign(new Error('stale'), { code: 'ESTALE' }),
    )) as unknown as typeof fs.promises.stat);
  syncBuiltinESMExports();
  const undo = await undoMaking({ kind: 'file', path: image });
  t.mock.restoreAll();
  syncBuiltinESMExports();
  await undo();
  assert.equal(readFileSync(image, 'utf8'), 'years of it');
});

test('the outcome of a shutdown is read from its record, or an error names the record', async (t) => {
  const run = folder(t);
  assert.equal(await readOutcome(run), undefined);
  const path = join(run, 'reboot.json');
  writeFileSync(path, '{"shutdown"');
  await assert.rejects(readOutcome(run), { code: 'FILE_ERROR', message: /reboot\.json is not what/ });
  rmSync(path);
  mkdirSync(path);
  await assert.rejects(readOutcome(run), {
    code: 'FILE_ERROR',
    message: /reboot\.json cannot be read: EISDIR/,
  });
});

test('unreadable records of snapshots and of mounts do not count as absent', async (t) => {
  const directory = folder(t);
  assert.deepEqual(await readSnapshotRecords(join(directory, 'none')), []);
  assert.deepEqual(await readMountRecords(directory), []);
  mkdirSync(join(directory, 'snapshots', 'one.json'), { recursive: true });
  mkdirSync(join(directory, 'mounts', 'one', 'record.json'), { recursive: true });
  const failed = (path: RegExp) => ({ code: 'FILE_ERROR', message: path });
  await assert.rejects(
    readSnapshotRecords(join(directory, 'snapshots')),
    failed(/one\.json cannot be read: EISDIR/),
  );
  await assert.rejects(readMountRecords(directory), failed(/record\.json cannot be read: EISDIR/));
  // The daemon starts all the same.
  assert.deepEqual(await removeLeftoverSnapshots(directory, silentLog()), []);
});

test('a directory is made with its parents, or the error names the one that cannot be made', async (t) => {
  const directory = folder(t);
  await makeDirectory(join(directory, 'a', 'b'));
  await makeDirectory(join(directory, 'a', 'b'));
  assert.ok(existsSync(join(directory, 'a', 'b')));
  symlinkSync(join(directory, 'nowhere'), join(directory, 'link'));
  await assert.rejects(makeDirectory(join(directory, 'link', 'c')), {
    code: 'FILE_ERROR',
    message: /link\/c cannot be made: ENOENT/,
  });
});
