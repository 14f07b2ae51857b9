/** A share of the model test of vaults. test/integration/vault-model.test.ts takes more steps. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runVaultModel } from '../helpers/vault-model/model.ts';

test('after 1200 random steps every live point of a vault restores bit for bit', async () => {
  await runVaultModel({ seed: 7, steps: 1200 });
});

test('a seed of the model repeats every request', async () => {
  const logs: string[][] = [[], []];
  for (const log of logs) await runVaultModel({ seed: 5, steps: 250, log: (line) => log.push(line) });
  assert.ok(logs[0]!.length > 500, `${logs[0]!.length} lines`);
  assert.deepEqual(logs[1], logs[0]);
});
