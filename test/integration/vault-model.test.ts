/**
 * The vault against a plain model: 10,000 random steps with many processes, kills, late and repeated requests, clock
 * jumps. A seed that failed once fails again: scripts/node test/vault-model.ts --seed N --steps N --log
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runVaultModel } from '../helpers/vault-model/model.ts';

test('after 10,000 random steps every live point restores bit for bit', async (t) => {
  const seed = Number(process.env['VAULT_MODEL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`seed ${seed}`);
  const counts = await runVaultModel({ seed, steps: 10_000 });
  t.diagnostic(JSON.stringify(counts));
  const { 'points compared': compared = 0, 'backup done': backups = 0, 'prune done': prunes = 0 } = counts;
  assert.ok(compared > 300 && backups > 100 && prunes > 30, JSON.stringify(counts));
});
