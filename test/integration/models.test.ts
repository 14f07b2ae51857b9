/**
 * Checks the protocol models in Promela. spin visits all their states: no assertion of a model is violated,
 * and a fault that is put into the model is found. So the model is able to find a fault. Needs spin and a C
 * compiler.
 */
import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { scratchFor } from '../helpers/backup.ts';
import type { EndingTest } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';

const models = fileURLToPath(new URL('../models', import.meta.url));

/** Returns the output of the model's verifier, with these definitions. */
async function verify(t: EndingTest, model: string, definitions: readonly string[] = []): Promise<string> {
  const cwd = join(scratchFor(t, { memory: true }), 'verifier');
  mkdirSync(cwd);
  await exec('spin', [...definitions.map((each) => `-D${each}`), '-a', join(models, model)], { cwd });
  await exec('gcc', ['-O1', '-DSAFETY', '-DCOLLAPSE', '-o', 'pan', 'pan.c'], { cwd });
  const { stdout } = await exec('./pan', ['-m10000'], { cwd });
  return stdout;
}

/** Asserts that each state was visited: neither memory nor depth reached its limit. */
function assertWhole(said: string): void {
  assert.match(said, /errors: 0$/m);
  assert.doesNotMatch(said, /Search not completed|max search depth too small/);
}

test('take and commit: a dying daemon, an older copy or an unreadable file never makes a wrong image', async (t) => {
  assertWhole(await verify(t, 'take-commit.pml'));
});

for (const [taken, violated] of [
  ['NO_GENERATION', /assertion violated \(target\[own\]==instant\)/],
  ['FORGET_FIRST', /assertion violated \(target\[own\]==instant\)/],
  ['ONE_FILE', /assertion violated \(target\[own\]==instant\)/],
  ['TRUST_TARGET', /assertion violated \(target\[own\]==instant\)/],
  ['NEXT_ALONE', /assertion violated \( !\(wholly\)\|\|\(faults>0\)\)/],
] as const)
  test(`take and commit: the fault ${taken} is found`, async (t) => {
    assert.match(await verify(t, 'take-commit.pml', [taken]), violated);
  });

for (const [what, definitions] of [
  ['everybody may die before each request', ['MISTAKES=0']],
  ['a writer that lives may be declared dead', ['DEATHS=0']],
  ['two prune at once, since the lock was taken over', ['TWO_PRUNERS', 'DEATHS=0']],
] as const)
  test(`vault: the data of a point stays although ${what}`, async (t) => {
    assertWhole(await verify(t, 'vault.pml', definitions));
  });

for (const fault of ['NO_WAITS', 'BUILD_ON_CONDEMNED', 'NO_LAST_LOOK', 'POINTS_FIRST', 'NO_SECOND_LOOK'])
  test(`vault: the fault ${fault} is found`, async (t) => {
    assert.match(await verify(t, 'vault.pml', [fault, 'DEATHS=0']), /assertion violated/);
  });
