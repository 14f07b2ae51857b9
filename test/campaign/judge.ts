/**
 * Judges a backup that says it succeeded: its image has to equal the device as it was at one instant, in all that
 * dumpe2fs or xfs_db call used, and to be whole without recovery. The instant is that of the copy that a hook made inside
 * the freeze; without a freeze nothing may have written, and the device itself is the reference.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { JobStatus } from '../../src/daemon/documents.ts';
import { exec } from '../helpers/exec.ts';
import { assertSameUsed, assertWhole, oracleUsed } from '../helpers/image-proof.ts';
import { deviceSize, type Outcome, type TargetName, type World } from './world.ts';

/** Refusals that a history may meet: each says why, and nothing was backed up. */
const expectedErrors: ReadonlySet<string> = new Set([
  'CANCELLED',
  'JOB_INTERRUPTED',
  'CHAIN_IN_DOUBT',
  'TARGET_MISMATCH',
  'DEVICE_BUSY',
  'DEVICE_GONE',
  'FREEZE_TIMEOUT',
  'FREEZE_FAILED',
  'NBD_CONNECTION_LOST',
  'TARGET_UNREACHABLE',
]);

/** Throws if the job lied: wrong data with success, or an error that is no fit answer. Returns words for the log. */
export async function judge(world: World, target: TargetName, outcome: Outcome): Promise<string> {
  if (outcome.refused !== undefined) {
    assert.ok(expectedErrors.has(outcome.refused.code), `refused: ${JSON.stringify(outcome.refused)}`);
    return `refused with ${outcome.refused.code}`;
  }
  const { status } = outcome;
  if (status.state !== 'SUCCEEDED') {
    assert.ok(status.error !== null, `${status.state} without an error`);
    assert.ok(expectedErrors.has(status.error.code), `failed: ${JSON.stringify(status.error)}`);
    return `${status.state} with ${status.error.code}`;
  }
  // A device that is written to while nothing can freeze it: the job has to say so.
  const unproven = status.warnings.some(({ code }) => (code as string) === 'NOT_ONE_INSTANT');
  if (!unproven) await assertImage(world, target, status);
  const device = status.devices[0]!;
  return `${device.kind}${unproven ? ', instant not proven' : ''}, ${device.bytes_sent} bytes sent`;
}

async function assertImage(world: World, target: TargetName, status: JobStatus): Promise<void> {
  const image = target === 'vault' ? await dumpPoint(world, status) : world.imageOf(target);
  const frozen = existsSync(world.reference);
  const reference = frozen ? world.reference : world.device;
  const told = `${target}, ${JSON.stringify(status.devices[0])}, ${JSON.stringify(status.warnings)}`;
  if (!(await isReadable(world, reference))) {
    // Raw writes have damaged the filesystem: every block counts then, if the job took every block.
    assert.ok(!frozen, 'a mounted filesystem is readable');
    await exec('cmp', ['-n', String(deviceSize), reference, image]).catch((cause: unknown) => {
      throw new Error(`the image is not the device: ${told}`, { cause });
    });
    return;
  }
  await assertSameUsed(world.filesystem, reference, image, deviceSize).catch((cause: unknown) => {
    throw new Error(`the image differs from the device: ${told}`, { cause });
  });
  if (frozen) await assertWhole(world.filesystem, image, 'frozen');
}

async function isReadable(world: World, reference: string): Promise<boolean> {
  return oracleUsed(world.filesystem, reference, deviceSize).then(
    () => true,
    () => false,
  );
}

async function dumpPoint(world: World, status: JobStatus): Promise<string> {
  const id = status.devices[0]!.point;
  const point = (await world.vault.points()).find((each) => each.id === id);
  assert.ok(point !== undefined, `the vault does not list the point ${id}`);
  const path = join(world.scratch, 'point');
  await exec('rm', ['-f', path]);
  await world.vault.dump(point.devices[0]!, path);
  return path;
}
