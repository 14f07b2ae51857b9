/** A share of the model test of vaults; test/integration/vault-model.test.ts takes more steps. */
import { test } from 'node:test';
import { runVaultModel } from '../helpers/vault-model/model.ts';

test('after 1200 random steps every live point of a vault restores bit for bit', async () => {
  await runVaultModel({ seed: 7, steps: 1200 });
});
