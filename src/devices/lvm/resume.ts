/**
 * Volumes that lvcreate left suspended, because it was killed between suspending and resuming. Processes that write to
 * them wait for ever. No guard watches over this freeze, since device-mapper makes it (ARCHITECTURE.md, invariant 4).
 * So the caller of lvcreate checks for such volumes when lvcreate has ended. A daemon that starts checks for those of
 * its predecessor.
 *
 * The volumes get back the tables that they had before. Tables that lvcreate had loaded for later lie on devices that
 * lvcreate would have resumed first. Without those devices, every write would fail.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { findProgram, runProgram } from '../../linux/program.ts';

/** A program that uses dmsetup alone, without the lock of LVM, may hold a volume suspended this long, milliseconds. */
const momentMs = 1000;

/** True if the device is suspended. `kernelName`: dm-N. */
export function isSuspended(kernelName: string, blocks = '/sys/block'): boolean {
  return attribute(join(blocks, kernelName), 'suspended') === '1';
}

/**
 * Resumes the volumes of a group that stay suspended, with the tables that they had before. Returns their names.
 * `groupUuid` has no hyphens. Throws SNAPSHOT_FAILED if some stay suspended.
 * `unlocked` resolves when no command of LVM holds the lock of the group: a command that holds it resumes its own
 * volumes.
 */
export async function resumeVolumes(
  groupUuid: string,
  unlocked: () => Promise<unknown>,
  blocks = '/sys/block',
): Promise<string[]> {
  const before = suspendedOf(groupUuid, blocks);
  if (before.length === 0) return [];
  await sleep(momentMs);
  await unlocked();
  const still = suspendedOf(groupUuid, blocks).filter((name) => before.includes(name));
  if (still.length === 0) return [];
  const dmsetup = findProgram('dmsetup');
  if (dmsetup === undefined) throw stay(still, 'dmsetup is not installed');
  for (const name of still) await runProgram(dmsetup, ['clear', name]);
  const resumed: string[] = [];
  // Listed again, since the order has changed: cleared volumes no longer lie on the devices that were made for them.
  for (const name of suspendedOf(groupUuid, blocks)) {
    if (!still.includes(name)) continue;
    const { code } = await runProgram(dmsetup, ['resume', '--noudevsync', name]);
    if (code === 0) resumed.push(name);
  }
  const left = suspendedOf(groupUuid, blocks, hasTable).filter((name) => still.includes(name));
  if (left.length > 0) throw stay(left, 'dmsetup could not resume them');
  return resumed;
}

/**
 * Removes a device that lvcreate had made to lie below the volume before its metadata recorded a snapshot: lvm2 does
 * not know that device. `uuid` is the volume's, as device-mapper has it. Call after `resumeVolumes`.
 */
export async function removeBegun(uuid: string, blocks = '/sys/block'): Promise<void> {
  const name = begunBelow(uuid, blocks);
  const dmsetup = findProgram('dmsetup');
  // If this fails, the next snapshot takes the device over.
  if (name !== undefined && dmsetup !== undefined)
    await runProgram(dmsetup, ['remove', '--noudevsync', name]);
}

/** Name of the device below the volume that has no table and carries no other device. Exported for its test. */
export function begunBelow(uuid: string, blocks: string): string | undefined {
  const place = readdirSync(blocks)
    .filter((name) => name.startsWith('dm-'))
    .map((name) => join(blocks, name))
    .find((each) => attribute(each, 'uuid') === `${uuid}-real`);
  if (place === undefined || hasTable(place) || entriesOf(place, 'holders').length > 0) return undefined;
  return attribute(place, 'name');
}

function stay(names: readonly string[], why: string): AgentError {
  return new AgentError(
    'SNAPSHOT_FAILED',
    `volumes stay suspended, and who writes to them waits: ${names.join(', ')}; ${why}`,
    {
      hint: `dmsetup resume ${names[0] ?? ''}`,
    },
  );
}

/**
 * Returns the device-mapper names of the suspended volumes. A lower device comes before those on top of it, since
 * resuming an upper one may have to write to the lower one. Exported for its test.
 */
export function suspendedOf(
  groupUuid: string,
  blocks: string,
  fits: (place: string) => boolean = () => true,
): string[] {
  return readdirSync(blocks)
    .filter((name) => name.startsWith('dm-') && fits(join(blocks, name)))
    .filter((name) => attribute(join(blocks, name), 'uuid').startsWith(`LVM-${groupUuid}`))
    .filter((name) => isSuspended(name, blocks))
    .map((name) => ({ name: attribute(join(blocks, name), 'name'), height: heightOf(name, blocks) }))
    .sort((a, b) => a.height - b.height)
    .map(({ name }) => name);
}

/** A device that lvcreate had only begun to make has no table: it cannot be resumed, and no process can write to it. */
function hasTable(place: string): boolean {
  try {
    return readFileSync(join(place, 'size'), 'latin1').trim() !== '0';
  } catch {
    return false;
  }
}

/** Number of devices from this one down to a disk, along the longest way. */
function heightOf(kernelName: string, blocks: string): number {
  const below = entriesOf(join(blocks, kernelName), 'slaves');
  return Math.max(0, ...below.map((name) => 1 + heightOf(name, blocks)));
}

function entriesOf(place: string, directory: 'slaves' | 'holders'): string[] {
  try {
    return readdirSync(join(place, directory));
  } catch {
    // The device is gone in the meantime, or is a partition.
    return [];
  }
}

function attribute(place: string, name: string): string {
  try {
    return readFileSync(join(place, 'dm', name), 'latin1').trim();
  } catch {
    return '';
  }
}
