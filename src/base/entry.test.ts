import assert from 'node:assert/strict';
import { test } from 'node:test';
import { entryPath } from './entry.ts';

test('in the sources an entry is the .ts file at its path relative to the caller', () => {
  const url = entryPath('file:///agent/src/freeze/guard.ts', './guard-main.ts');
  assert.equal(url.href, 'file:///agent/src/freeze/guard-main.ts');
});

test('in the bundles all entries are in one folder', () => {
  const caller = 'file:///opt/agent/build/lib/chunk-ABCD.js';
  assert.equal(entryPath(caller, './guard-main.ts').href, 'file:///opt/agent/build/lib/guard-main.js');
  assert.equal(
    entryPath(caller, '../backup/copy/copy-worker.ts').href,
    'file:///opt/agent/build/lib/copy-worker.js',
  );
  assert.equal(entryPath(caller, '../bin/dattod.ts').href, 'file:///opt/agent/build/lib/dattod.js');
});

test('a name that the build does not bundle is refused', () => {
  assert.throws(() => entryPath('file:///agent/src/freeze/guard.ts', './guard.ts'), RangeError);
});
