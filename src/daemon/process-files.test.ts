/** Pid file and log file: what a second daemon, a crash, a rotation and a freeze do to them. */
import assert from 'node:assert/strict';
import {
  existsSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
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

test('the pid file holds the pid and goes away at the end; a stale one is no hindrance', () => {
  const path = join(directory, 'pid');
  writeFileSync(path, '99999999 and more\n');
  const instance = claimInstance(path, () => true, 42);
  assert.equal(readFileSync(path, 'utf8'), '42\n');
  instance.release();
  assert.equal(existsSync(path), false);
});

test('a second instance is refused with the pid of the first, which stays as it is', () => {
  const path = join(directory, 'pid');
  writeFileSync(path, '42\n');
  assert.throws(() => claimInstance(path, () => false), {
    code: 'DAEMON_ALREADY_RUNNING',
    message: 'dattod is already running (pid 42)',
  });
  assert.equal(readFileSync(path, 'utf8'), '42\n');
});

test('a lock on a file that was removed meanwhile counts for nothing', () => {
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

test('an impossible pid file is a file error', () => {
  assert.throws(() => claimInstance(join(directory, 'no/pid'), () => true), {
    code: 'FILE_ERROR',
    message: /ENOENT/,
  });
});

test('log lines wait for the opening and for the thaw', () => {
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

test('a rotated log goes on in a new file; while frozen the rotation waits too', () => {
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

test('a process that ends writes its last words whatever is frozen', () => {
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

test('a log that cannot be opened is a file error', () => {
  assert.throws(() => new LogFile(join(directory, 'no/log')).open(), {
    code: 'FILE_ERROR',
    message: /ENOENT/,
  });
});
