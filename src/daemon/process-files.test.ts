/** Pid file and log file: the effects of a second daemon, a crash, a rotation and a freeze. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { claimInstance } from './instance.ts';
import { LogFile } from './log-file.ts';

let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'files-test-'));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

test('the pid file holds the pid and is removed at the end; a stale one does not prevent a start', () => {
  const path = join(directory, 'pid');
  writeFileSync(path, '99999999999\n');
  const instance = claimInstance(path, () => true, 42);
  assert.equal(readFileSync(path, 'utf8'), '42\n');
  instance.release();
  assert.equal(existsSync(path), false);
});

test('a second instance is refused with the pid of the first; the first is not disturbed', () => {
  const path = join(directory, 'pid');
  writeFileSync(path, '42\n');
  assert.throws(() => claimInstance(path, () => false), {
    code: 'DAEMON_ALREADY_RUNNING',
    message: 'dattod is already running (pid 42)',
  });
  assert.equal(readFileSync(path, 'utf8'), '42\n');
});

test('a lock on a file that was removed in the meantime does not count', () => {
  const path = join(directory, 'pid');
  let tries = 0;
  const instance = claimInstance(
    path,
    () => {
      if (++tries === 1) unlinkSync(path);
      return true;
    },
    42,
  );
  assert.equal(tries, 2);
  assert.equal(readFileSync(path, 'utf8'), '42\n');
  instance.release();
});

test('only a pid file is overwritten or removed', () => {
  const path = join(directory, 'fstab');
  for (const text of ['/dev/sda1 / ext4\n', '42 and more', '1\n2\n3\n', '9'.repeat(40), '\u0000']) {
    writeFileSync(path, text);
    assert.throws(() => claimInstance(path, () => true), {
      code: 'FILE_EXISTS',
      message: /is not a pid file/,
    });
    assert.equal(readFileSync(path, 'utf8'), text);
  }
  const link = join(directory, 'link');
  symlinkSync(path, link);
  for (const place of [link, directory, '/dev/null'])
    assert.throws(() => claimInstance(place, () => true), { code: 'FILE_EXISTS' });

  const pidFile = join(directory, 'pid');
  const instance = claimInstance(pidFile, () => true, 42);
  unlinkSync(pidFile);
  writeFileSync(pidFile, "another program's");
  instance.release();
  assert.equal(readFileSync(pidFile, 'utf8'), "another program's");
});

test('a log is not written to a directory or a pipe', () => {
  const pipe = join(directory, 'pipe');
  execFileSync('mkfifo', [pipe]);
  for (const path of [directory, pipe])
    assert.throws(() => new LogFile(path).open(), { code: 'FILE_ERROR', message: /is not a regular file/ });
  const log = new LogFile('/dev/null');
  log.open();
  log.close();
});

test('an unusable pid file path gives FILE_ERROR', () => {
  assert.throws(() => claimInstance(join(directory, 'no/pid'), () => true), {
    code: 'FILE_ERROR',
    message: /ENOENT/,
  });
});

test('log lines wait until the file is opened and everything is thawed', () => {
  const path = join(directory, 'log');
  const log = new LogFile(path);
  log.write('before\n');
  assert.equal(existsSync(path), false);
  log.open();
  assert.equal(readFileSync(path, 'utf8'), 'before\n');
  log.hold();
  log.hold();
  log.write('frozen\n');
  log.release();
  assert.equal(readFileSync(path, 'utf8'), 'before\n');
  log.release();
  assert.equal(readFileSync(path, 'utf8'), 'before\nfrozen\n');
  log.close();
});

test('a rotated log continues in a new file; during a freeze the rotation waits too', () => {
  const path = join(directory, 'log');
  const log = new LogFile(path);
  log.open();
  log.write('one\n');
  renameSync(path, `${path}.1`);
  log.hold();
  log.write('two\n');
  log.reopen();
  assert.equal(existsSync(path), false);
  log.release();
  log.write('three\n');
  assert.equal(readFileSync(`${path}.1`, 'utf8'), 'one\ntwo\n');
  assert.equal(readFileSync(path, 'utf8'), 'three\n');
  log.close();
});

test('a process that ends writes its last lines even if something is frozen', () => {
  const path = join(directory, 'log');
  const log = new LogFile(path);
  log.open();
  log.hold();
  log.hold();
  log.write('fatal\n');
  log.force();
  assert.equal(readFileSync(path, 'utf8'), 'fatal\n');
  log.close();
});

test('a log that cannot be opened gives FILE_ERROR', () => {
  assert.throws(() => new LogFile(join(directory, 'no/log')).open(), {
    code: 'FILE_ERROR',
    message: /ENOENT/,
  });
});
