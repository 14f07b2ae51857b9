/**
 * Models of protocols in Promela, all of whose states spin visits: nothing that the model says of them is violated, and
 * a fault that is put into the model is found, so that the model can find one. Needs spin and a C compiler.
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

/** What the verifier of the model says, with these definitions. */
async function verify(t: EndingTest, model: string, definitions: readonly string[] = []): Promise<string> {
  const cwd = join(scratchFor(t, { memory: true }), 'verifier');
  mkdirSync(cwd);
  await exec('spin', [...definitions.map((each) => `-D${each}`), '-a', join(models, model)], { cwd });
  await exec('gcc', ['-O1', '-DSAFETY', '-DCOLLAPSE', '-o', 'pan', 'pan.c'], { cwd });
  const { stdout } = await exec('./pan', ['-m10000'], { cwd });
  return stdout;
}

/** Each state was visited: neither memory nor depth were at their end. */
function assertWhole(said: string): void {
  assert.match(said, /errors: 0$/m);
  assert.doesNotMatch(said, /Search not completed|max search depth too small/);
}

test('take and commit: no daemon that dies, no older copy and no unreadable file makes a wrong image', async (t) => {
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
  test(`vault: what a point needs stays where ${what}`, async (t) => {
    assertWhole(await verify(t, 'vault.pml', definitions));
  });

for (const fault of ['NO_WAITS', 'BUILD_ON_CONDEMNED', 'NO_LAST_LOOK', 'POINTS_FIRST', 'NO_SECOND_LOOK'])
  test(`vault: the fault ${fault} is found`, async (t) => {
    assert.match(await verify(t, 'vault.pml', [fault, 'DEATHS=0']), /assertion violated/);
  });
