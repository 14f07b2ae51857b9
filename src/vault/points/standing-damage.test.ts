import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { PointCheck, StoredCheck } from './checks.ts';
import { standingDamage } from './standing-damage.ts';

type Level = PointCheck['level'];
type Outcome = PointCheck['outcome'];

/** A check of one device. */
function check(level: Level, outcome: Outcome, coverage = 1, path = '/a', point = 'p'): StoredCheck {
  return { ...bare(level, outcome, coverage, point), devices: [{ path, coverage, outcome }] };
}

/** A check as the first versions wrote it. */
function bare(level: Level, outcome: Outcome, coverage = 1, point = 'p'): StoredCheck {
  return { point, level, outcome, coverage, at: '2024-05-01T00:00:00.000Z', problems: [], agent: '1' };
}

function stands(...checks: StoredCheck[]): boolean {
  return standingDamage(checks).some(({ point }) => point === 'p');
}

test('a later check of the same level clears damage, but not damage found after it', () => {
  for (const level of ['reachable', 'read', 'filesystem'] as const) {
    assert.equal(stands(check(level, 'damaged')), true);
    assert.equal(stands(check(level, 'damaged'), check(level, 'whole')), false);
    assert.equal(stands(check(level, 'damaged'), check(level, 'whole'), check(level, 'damaged')), true);
    assert.equal(stands(check(level, 'whole')), false);
  }
});

test('a check clears damage of its own level, and a read check also clears reachable damage', () => {
  const cleared = (found: Level, by: Level): boolean => !stands(check(found, 'damaged'), check(by, 'whole'));
  const levels = ['reachable', 'read', 'filesystem'] as const;
  assert.deepEqual(
    levels.flatMap((found) => levels.filter((by) => cleared(found, by)).map((by) => `${found} by ${by}`)),
    ['reachable by reachable', 'reachable by read', 'read by read', 'filesystem by filesystem'],
  );
});

test('a check with less coverage clears nothing, and neither does a sample', () => {
  assert.equal(stands(check('read', 'damaged'), check('read', 'whole', 0.5)), true);
  assert.equal(stands(check('read', 'damaged', 0.05), check('read', 'whole', 0.05)), true);
  assert.equal(stands(check('read', 'damaged', 0.05), check('read', 'whole', 0.9)), true);
  assert.equal(stands(check('reachable', 'damaged'), check('read', 'whole', 0.9)), true);
  assert.equal(stands(check('read', 'damaged', 0.05), check('read', 'whole')), false);
  assert.equal(stands(check('filesystem', 'damaged', 0.5), check('filesystem', 'whole', 0.4)), true);
  assert.equal(stands(check('filesystem', 'damaged', 0.5), check('filesystem', 'whole', 0.5)), false);
});

test('a check that could not read anything clears nothing', () => {
  assert.equal(stands(check('filesystem', 'damaged'), check('filesystem', 'unfinished', 0)), true);
  assert.equal(stands(bare('read', 'damaged'), bare('read', 'unfinished', 0)), true);
  assert.equal(stands(bare('read', 'damaged', 0), bare('read', 'unfinished', 0)), true);
});

test('a check of another device or point clears nothing', () => {
  assert.equal(stands(check('read', 'damaged'), check('read', 'whole', 1, '/a', 'q')), true);
  const ofB = { ...check('read', 'whole', 1, '/b'), coverage: 0.5 };
  assert.equal(stands({ ...check('read', 'damaged'), coverage: 0.5 }, ofB), true);
  const both: StoredCheck = {
    ...bare('read', 'damaged'),
    devices: [
      { path: '/a', coverage: 1, outcome: 'whole' },
      { path: '/b', coverage: 1, outcome: 'damaged' },
    ],
  };
  assert.equal(stands(both, ofB), false);
  assert.equal(stands(check('read', 'damaged'), both), true, 'the damage of /b');
  assert.deepEqual(standingDamage([check('read', 'damaged'), both]), [both]);
});

test('if devices are not recorded, only a check of the complete point clears damage', () => {
  assert.equal(stands(bare('reachable', 'damaged', 0.5), bare('reachable', 'whole', 0.5)), true);
  assert.equal(stands(bare('reachable', 'damaged', 0.5), bare('reachable', 'whole')), false);
  assert.equal(stands(bare('read', 'damaged'), check('read', 'whole')), false);
  assert.equal(stands(bare('read', 'damaged'), { ...check('read', 'whole'), coverage: 0.5 }), true);
  assert.equal(stands(check('read', 'damaged'), bare('read', 'whole')), false);
  assert.equal(stands(check('read', 'damaged'), bare('read', 'whole', 0.5)), true);
});
