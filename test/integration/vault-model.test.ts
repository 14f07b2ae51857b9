/**
 * The vault against a plain model: random steps with many processes, kills, late and repeated requests, clock jumps. A
 * share of the campaign `scripts/node test/vault-model.ts --seed N --steps N --log`, which plays other seeds. A seed
 * repeats everything, so a failure can be played again.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runVaultModel } from '../helpers/vault-model/model.ts';

test('after 10,000 random steps every live point restores bit for bit', async (t) => {
  const seed = Number(process.env['VAULT_MODEL_SEED'] ?? 41);
  t.diagnostic(`seed ${seed}`);
  const counts = await runVaultModel({ seed, steps: 10_000 });
  t.diagnostic(JSON.stringify(counts));
  const { 'points compared': compared = 0, 'backup done': backups = 0, 'prune done': prunes = 0 } = counts;
  assert.ok(compared > 300 && backups > 100 && prunes > 30, JSON.stringify(counts));
});
