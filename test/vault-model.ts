/**
 * Plays the vault against a plain model. The same seed repeats a failure:
 *
 *     scripts/node test/vault-model.ts [--seed N] [--steps N] [--runs N] [--log]
 */
import { parseArgs } from 'node:util';
import { runVaultModel } from './helpers/vault-model/model.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    steps: { type: 'string', default: '10000' },
    runs: { type: 'string', default: '1' },
    log: { type: 'boolean', default: false },
  },
});

for (let run = 0; run < Number(values.runs); run++) {
  const seed = Number(values.seed) + run;
  const began = performance.now();
  const counts = await runVaultModel({
    seed,
    steps: Number(values.steps),
    log: values.log ? (line) => console.log(line) : undefined,
  });
  console.log(`seed ${seed}: ${values.steps} steps in ${((performance.now() - began) / 1000).toFixed(1)} s`);
  if (run === 0) console.log(counts);
}
