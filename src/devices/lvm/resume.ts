/**
 * Volumes that lvcreate left suspended, because it was killed between suspending and resuming: whoever writes to them
 * waits for good. No guard watches over that freeze, since device-mapper makes it (ARCHITECTURE.md, invariant 4), so
 * whoever called lvcreate looks when it has ended, and a daemon that starts looks after its predecessor's.
 *
 * They get back the tables that they had. Those that lvcreate had loaded for afterwards lie on devices which it would
 * have resumed before, and without them every write would fail.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { findProgram, runProgram } from '../../linux/program.ts';

/** Whoever works by dmsetup alone may hold one suspended for a moment, milliseconds. */
const momentMs = 1000;

/** `kernelName`: dm-N. */
export function isSuspended(kernelName: string, blocks = '/sys/block'): boolean {
  return attribute(join(blocks, kernelName), 'suspended') === '1';
}

/**
 * Resumes what is suspended of a volume group and stays so, as it was before; the names. `groupUuid` without hyphens.
 * Throws SNAPSHOT_FAILED where some stay suspended.
 * `unlocked` resolves when no command of LVM holds the lock of the group: what one of them has suspended is its own.
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
  // The order is another by now: what was cleared lies no more on what was made for it.
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
 * Removes what lvcreate had made to lie below the volume, before its metadata told of a snapshot: lvm2 knows nothing of
 * it then. `uuid`: the volume's, as device-mapper has it. For after `resumeVolumes`.
 */
export async function removeBegun(uuid: string, blocks = '/sys/block'): Promise<void> {
  const name = begunBelow(uuid, blocks);
  const dmsetup = findProgram('dmsetup');
  // Where it fails, the next snapshot takes it over.
  if (name !== undefined && dmsetup !== undefined)
    await runProgram(dmsetup, ['remove', '--noudevsync', name]);
}

/** The device below the volume that has no table, and that nothing lies on. Exported for its test. */
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
 * Names of device-mapper; those below before those on top of them, on which resuming may have to write. Exported for its
 * test.
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

/** What lvcreate had only begun to make has none: it cannot be resumed, and nobody can write to it. */
function hasTable(place: string): boolean {
  try {
    return readFileSync(join(place, 'size'), 'latin1').trim() !== '0';
  } catch {
    return false;
  }
}

/** Devices from this one down to a disk, along the longest way. */
function heightOf(kernelName: string, blocks: string): number {
  const below = entriesOf(join(blocks, kernelName), 'slaves');
  return Math.max(0, ...below.map((name) => 1 + heightOf(name, blocks)));
}

function entriesOf(place: string, directory: 'slaves' | 'holders'): string[] {
  try {
    return readdirSync(join(place, directory));
  } catch {
    // Gone meanwhile, or a partition.
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
