import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { DatabaseSync } from 'node:sqlite';
import type { JobState } from '../api/job-status.ts';
import type { JobStatus } from '../api/job-status.ts';
import { History } from './history.ts';

let directory: string;
let path: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'history-test-'));
  path = join(directory, 'history.sqlite');
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

function status(uuid: string, state: JobState = 'SUCCEEDED'): JobStatus {
  return {
    ...{ uuid, kind: 'full', state, phase: 'copying', paused: false },
    ...{
      created_at: '2026-01-01T00:00:00.000Z',
      finished_at: null,
      tracker: 'none',
      rate: 5,
      seconds_left: 1,
    },
    ...{ warnings: [], error: null, devices: [] },
  };
}

test('statuses survive a restart: the newest of each job, the newest job first', () => {
  const first = new History(path);
  first.put(status('a', 'IN_PROGRESS'));
  first.put(status('b'));
  first.put(status('a'));
  first.close();
  const second = new History(path);
  assert.deepEqual(
    second.list().map(({ uuid, state }) => [uuid, state]),
    [
      ['b', 'SUCCEEDED'],
      ['a', 'SUCCEEDED'],
    ],
  );
  assert.equal(second.get('a')?.state, 'SUCCEEDED');
  assert.equal(second.get('c'), undefined);
  second.close();
});

test('nothing is written while writes are held, and everything can be read', () => {
  const history = new History(path);
  history.put(status('a', 'IN_PROGRESS'));
  const before = statSync(path);
  history.hold();
  history.hold();
  history.put(status('a', 'FAILED'));
  history.put(status('b'));
  history.release();
  const during = statSync(path);
  assert.deepEqual([during.mtimeMs, during.size], [before.mtimeMs, before.size]);
  assert.equal(history.get('a')?.state, 'FAILED');
  assert.deepEqual(
    history.list().map(({ uuid }) => uuid),
    ['b', 'a'],
  );
  assert.deepEqual(history.uuids().toSorted(), ['a', 'b']);
  history.release();
  assert.notEqual(statSync(path).mtimeMs, before.mtimeMs);
  history.close();
  const again = new History(path);
  assert.equal(again.get('a')?.state, 'FAILED');
  again.close();
});

test('a job that was running is FAILED after a restart, with the reason', () => {
  const killed = new History(path, { bootId: 'one' });
  killed.put(status('a', 'IN_PROGRESS'));
  killed.put(status('b', 'NOT_STARTED'));
  killed.put(status('c'));
  killed.close();
  const now = new Date('2026-01-02T00:00:00Z');
  const next = new History(path, { bootId: 'one' });
  assert.deepEqual(
    next.failInterrupted(now).map(({ uuid }) => uuid),
    ['a', 'b'],
  );
  const a = next.get('a')!;
  assert.deepEqual(
    [a.state, a.error?.code, a.finished_at, a.rate],
    ['FAILED', 'JOB_INTERRUPTED', now.toISOString(), 0],
  );
  assert.match(a.error!.message, /^dattod was killed or crashed during the job \(phase: copying\)$/);
  assert.deepEqual(next.failInterrupted(now), []);
  assert.equal(next.get('c')?.state, 'SUCCEEDED');
  next.put(status('d', 'IN_PROGRESS'));
  next.close();
  const rebooted = new History(path, { bootId: 'two' });
  assert.match(rebooted.failInterrupted(now)[0]!.error!.message, /^The machine was restarted during the job/);
  rebooted.close();
});

test('the oldest jobs are removed above the limit', () => {
  const history = new History(path, { limit: 3 });
  for (const uuid of 'abcdef') history.put(status(uuid));
  assert.deepEqual(
    history.list().map(({ uuid }) => uuid),
    ['f', 'e', 'd'],
  );
  assert.deepEqual(
    history.list(1).map(({ uuid }) => uuid),
    ['f'],
  );
  history.close();
});

test('two daemons do not share a history', () => {
  const one = new History(path);
  assert.throws(() => new History(path), { code: 'DAEMON_ALREADY_RUNNING' });
  one.close();
  new History(path).close();
});

test('a file that is not a history is refused and not changed', () => {
  writeFileSync(path, 'this is not a database, whatever its name says '.repeat(20));
  const size = statSync(path).size;
  assert.throws(() => new History(path), { code: 'FILE_ERROR', message: /file is not a database/ });
  assert.equal(statSync(path).size, size);
  assert.throws(() => new History(join(directory, 'no/such/place')), { code: 'FILE_ERROR' });
});

test('a history of a newer version is refused', () => {
  const newer = new DatabaseSync(path);
  newer.exec('PRAGMA user_version = 99');
  newer.close();
  assert.throws(() => new History(path), { code: 'FILE_ERROR', message: /version 99, this dattod knows 1$/ });
});

test('a failed write is reported, and tried again with the next one', () => {
  const errors: unknown[] = [];
  const history = new History(path, { onError: (error) => errors.push(error) });
  // A status that cannot be written has the same effect as a full disk.
  const broken = { ...status('a'), created_at: Symbol('no') as unknown as string };
  history.put(broken);
  assert.equal(errors.length, 1);
  assert.equal(history.get('a')?.uuid, 'a');
  history.put(status('a'));
  assert.equal(errors.length, 1);
  history.close();
  const again = new History(path);
  assert.equal(again.get('a')?.state, 'SUCCEEDED');
  again.close();
});

test('on a machine restored from the image that a job made, the result of that job is not known', () => {
  const frozen = new History(path, { bootId: 'one' });
  frozen.put({ ...status('a', 'IN_PROGRESS'), phase: 'freezing' });
  frozen.put({ ...status('b', 'IN_PROGRESS'), phase: 'frozen' });
  frozen.close();
  const restored = new History(path, { bootId: 'two' });
  const [a, b] = restored.failInterrupted(new Date());
  assert.deepEqual([a?.state, b?.state], ['UNKNOWN', 'FAILED']);
  assert.match(a?.error?.message ?? '', /restored from what the job made/);
  restored.close();
  const killed = new History(path, { bootId: 'two' });
  killed.put({ ...status('c', 'IN_PROGRESS'), phase: 'freezing' });
  killed.close();
  const again = new History(path, { bootId: 'two' });
  assert.deepEqual(
    again.failInterrupted(new Date()).map(({ state }) => state),
    ['FAILED'],
  );
  again.close();
});
