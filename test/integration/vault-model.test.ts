/**
 * The vault against a plain model: random steps with many processes, kills, late and repeated requests, clock jumps. A short
 * share of the campaign `scripts/node test/vault-model.ts --seed N --steps N --log`. A seed repeats the steps, but not the
 * order of requests that run at the same time. In about one of ten runs of 10,000 steps a check reports a point as not
 * whole. The cause is not known yet (docs/reliability.md).
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runVaultModel } from '../helpers/vault-model/model.ts';

test('after 2,000 random steps every live point restores bit for bit', async (t) => {
  const seed = Number(process.env['VAULT_MODEL_SEED'] ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`seed ${seed}`);
  const counts = await runVaultModel({ seed, steps: 2_000 });
  t.diagnostic(JSON.stringify(counts));
  const { 'points compared': compared = 0, 'backup done': backups = 0, 'prune done': prunes = 0 } = counts;
  assert.ok(compared > 60 && backups > 20 && prunes > 6, JSON.stringify(counts));
});
