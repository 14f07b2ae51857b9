import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { expediteGracePeriods, restoreGracePeriods } from './grace-periods.ts';

test('the setting is changed while a freeze needs it, and restored afterwards or by the next daemon', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'grace-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const run = mkdtempSync(join(directory, 'run-'));
  const path = join(directory, 'rcu_expedited');
  const now = () => readFileSync(path, 'latin1').trim();
  writeFileSync(path, '0\n');
  const first = expediteGracePeriods(run, path);
  const second = expediteGracePeriods(run, path);
  first();
  first();
  assert.equal(now(), '1');
  second();
  assert.deepEqual([now(), readdirSync(run)], ['0', []]);
  assert.equal(restoreGracePeriods(run, path), false);

  // The state that a killed daemon leaves.
  writeFileSync(join(run, 'rcu-expedited'), '0');
  writeFileSync(path, '1\n');
  assert.equal(restoreGracePeriods(run, path), true);
  assert.deepEqual([now(), readdirSync(run)], ['0', []]);
});

test('a setting that another program changed is left unchanged, and a missing setting is no error', (t) => {
  const run = mkdtempSync(join(tmpdir(), 'grace-'));
  t.after(() => rmSync(run, { recursive: true }));
  const path = join(run, 'rcu_expedited');
  expediteGracePeriods(run, path)();
  assert.deepEqual(readdirSync(run), []);
  writeFileSync(path, '1\n');
  expediteGracePeriods(run, path)();
  assert.deepEqual([readFileSync(path, 'latin1'), readdirSync(run)], ['1\n', ['rcu_expedited']]);
});
