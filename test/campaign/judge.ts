/**
 * Judges a job that reports success. The content of each target has to equal the device at one instant, in
 * all blocks that dumpe2fs or xfs_db call used. The instant is that of the copy that a hook made inside the
 * freeze.
 *
 * A device that was not frozen is copied after the job, and also before it if something happened in the
 * meantime. The image has to equal one of the two copies. A job that fails has to have a reason that the step
 * expects.
 */
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { ErrorDocument } from '../../src/base/errors.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { assertWhole } from '../helpers/image-proof.ts';
import { differenceOf, type Expected, expectedOf } from './expected.ts';
import type { BackupRequest, Outcome, Pair, World } from './world.ts';

export type ErrorCode = ErrorDocument['code'];

/**
 * An image that proved right and its expected content, for the check of whole filesystems at the end of a
 * history.
 */
export interface RightImage {
  readonly path: string;
  readonly expected: Expected;
  /** The device was frozen, so its filesystem is whole without recovery. */
  readonly frozen: boolean;
}

/**
 * Throws if the job's report was wrong, or if it failed with an error that is not among `errors`. Returns
 * words for the log. `onRight` gets each image that proved right.
 */
export async function judge(
  world: World,
  request: BackupRequest,
  outcome: Outcome,
  errors: readonly ErrorCode[],
  onRight?: (image: RightImage) => void,
): Promise<string> {
  const { refused, status } = outcome;
  if (status === undefined) {
    assert.ok(refused !== undefined && errors.includes(refused.code), `refused: ${JSON.stringify(refused)}`);
    return `refused with ${refused.code}`;
  }
  if (status.state !== 'SUCCEEDED') {
    const { error } = status;
    assert.ok(error !== null && errors.includes(error.code), `${status.state}: ${JSON.stringify(error)}`);
    return `${status.state} with ${error.code}`;
  }
  const said: string[] = [];
  for (const pair of request.pairs) said.push(await judgeDisk(world, pair, outcome, onRight));
  return said.join('; ');
}

async function judgeDisk(
  world: World,
  { disk: name, target }: Pair,
  { status, references, images }: Outcome,
  onRight: ((image: RightImage) => void) | undefined,
): Promise<string> {
  const disk = world.disks[name];
  const device = status!.devices.find((each) => each.device === disk.device)!;
  const summary = `${name} ${device.kind} by ${device.tracker}, ${device.bytes_sent} bytes`;
  // If a device is written to and cannot be frozen, the job has to report it.
  const unproven = status!.warnings.some(
    ({ code, device: of }) => code === 'NOT_ONE_INSTANT' && (of ?? disk.device) === disk.device,
  );
  if (unproven) return `${summary}, instant not proven`;
  const image = await imageOf(world, { disk: name, target }, images.get(name), status!);
  const copies = references.get(name) ?? [];
  assert.ok(copies.length > 0, `no copy of ${disk.device} to compare with`);
  const differences: string[] = [];
  for (const { path: copy, size } of copies) {
    const expected = await expectedOf(copy, disk.content, size);
    const difference = await differenceOf(expected, image.path);
    if (difference !== undefined) {
      differences.push(`${copy.replace(/.*-/, '')}: ${difference}`);
      continue;
    }
    image.keep(expected);
    onRight?.({ path: image.path, expected, frozen: copy.endsWith('-frozen') });
    return summary;
  }
  throw new Error(
    `the image of ${name} at ${target} is wrong. ${differences.join('; ')}. ` +
      `${JSON.stringify(device)} ${JSON.stringify(status!.warnings)}`,
  );
}

interface ReadImage {
  readonly path: string;
  /** Remembers the expected content of a recovery point from now on. */
  readonly keep: (expected: Expected) => void;
}

async function imageOf(
  world: World,
  { disk: name, target }: Pair,
  path: string | undefined,
  status: JobStatus,
): Promise<ReadImage> {
  if (path !== undefined) return { path, keep: () => undefined };
  assert.ok(target === 'vault' || target === 'copy');
  const vault = world.vaultAt(target);
  const { device } = world.disks[name];
  const id = status.devices.find((each) => each.device === device)!.point;
  const point = (await vault.points()).find((each) => each.id === id);
  assert.ok(id !== null && point !== undefined, `the vault does not list the point ${id}`);
  const dump = join(world.scratch, `point-${name}`);
  await dumpOf(world, target, id, device, dump);
  return { path: dump, keep: (expected) => vault.expect(id, device, expected) };
}

async function dumpOf(
  world: World,
  target: 'vault' | 'copy',
  id: string,
  device: string,
  path: string,
): Promise<void> {
  const vault = world.vaultAt(target);
  const point = (await vault.points()).find((each) => each.id === id);
  const found = point?.devices.find((each) => each.path === device);
  assert.ok(found !== undefined, `the point ${id} at ${target} does not list ${device}`);
  await rm(path, { force: true });
  await vault.dump(found, path).catch((cause: unknown) => {
    throw new Error(`the point ${id} at ${target} cannot be read: ${String(cause)}`, { cause });
  });
}

/** Throws unless each right point that was not forgotten is still listed and has the same content. */
export async function judgePoints(world: World): Promise<number> {
  let count = 0;
  for (const target of ['vault', 'copy'] as const) {
    if (target === 'copy' && world.copy === undefined) continue;
    const vault = world.vaultAt(target);
    for (const id of vault.known)
      for (const device of vault.devicesOf(id)) {
        const path = join(world.scratch, 'point-again');
        await dumpOf(world, target, id, device, path);
        const difference = await differenceOf(vault.expectedOf(id, device)!, path);
        assert.equal(difference, undefined, `the point ${id} at ${target} is not what it was`);
        count++;
      }
  }
  return count;
}

/** Asserts that e2fsck or xfs_repair finds no error in an image that was taken inside a freeze. */
export async function judgeWhole({ path, expected, frozen }: RightImage): Promise<void> {
  if (expected.content !== 'other' && frozen) await assertWhole(expected.content, path, 'frozen');
}
