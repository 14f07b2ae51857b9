import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { faults } from '../campaign/faults.ts';

const root = join(import.meta.dirname, '../..');

test('the edits that remove fixes match the sources', () => {
  for (const { name, edits } of faults)
    for (const { file, from } of edits) {
      const parts = readFileSync(join(root, file), 'utf8').split(from);
      assert.equal(parts.length, 2, `fault ${name}: ${file} has "${from}" ${parts.length - 1} times`);
    }
});
