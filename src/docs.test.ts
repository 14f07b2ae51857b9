/** The manuals say what the code does: help texts, routes, options, error and warning codes (scripts/docs.ts). */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkDocs } from '../scripts/docs/generated.ts';

test('the generated parts of docs/ are what the code says, all of them and no others', async () => {
  assert.deepEqual(await checkDocs(), [], 'run scripts/node scripts/docs.ts --write');
});
