/**
 * The steps of random histories, for fast-check's model runner. It makes sequences of them from a seed, and
 * shrinks one that fails. The state of the machine itself decides which steps are possible next, so the model
 * is the machine.
 */
import fc from 'fast-check';
import { backupSteps } from './backup-steps.ts';
import { deviceSteps } from './device-steps.ts';
import type { Command, Recorder } from './step.ts';
import { troubleSteps } from './trouble-steps.ts';
import { vaultSteps } from './vault-steps.ts';

/**
 * Returns all steps of which histories consist. Writes and backups come more often than trouble. If
 * `favoured` is given, half of the steps have names that match.
 */
export function stepsFor(recorder: Recorder, favoured?: RegExp): fc.Arbitrary<Command>[] {
  const backups = fc.oneof(...backupSteps(recorder));
  const devices = fc.oneof(...deviceSteps(recorder));
  const troubles = fc.oneof(...troubleSteps(recorder));
  const vaults = fc.oneof(...vaultSteps(recorder));
  const all = [
    ...Array<typeof backups>(4).fill(backups),
    ...[devices, devices, devices, troubles, troubles, vaults],
  ];
  if (favoured === undefined) return all;
  const chosen = fc.oneof(...all).filter((command) => favoured.test(String(command)));
  return [...all, ...Array<typeof chosen>(all.length).fill(chosen)];
}
