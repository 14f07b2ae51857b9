/**
 * Volumes that lvcreate left suspended, because it was killed between suspending and resuming: whoever writes to them
 * waits for good. No guard watches over that freeze, since device-mapper makes it (ARCHITECTURE.md, invariant 4), so
 * whoever called lvcreate looks when it has ended, and a daemon that starts looks after its predecessor's.
 */
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { findProgram, runProgram } from '../../linux/program.ts';

/** Another LVM command may hold one suspended for a moment, milliseconds. */
const momentMs = 1000;

/** `kernelName`: dm-N. */
export function isSuspended(kernelName: string, blocks = '/sys/block'): boolean {
  return attribute(join(blocks, kernelName), 'suspended') === '1';
}

/** Resumes what is suspended of a volume group and stays so; the names. `groupUuid` without hyphens. */
export async function resumeVolumes(groupUuid: string, blocks = '/sys/block'): Promise<string[]> {
  const before = suspendedOf(groupUuid, blocks);
  if (before.length === 0) return [];
  await sleep(momentMs);
  const still = suspendedOf(groupUuid, blocks).filter((name) => before.includes(name));
  const dmsetup = findProgram('dmsetup');
  if (dmsetup === undefined) return [];
  const resumed: string[] = [];
  for (const name of still) {
    const { code } = await runProgram(dmsetup, ['resume', '--noudevsync', name]);
    if (code === 0) resumed.push(name);
  }
  return resumed;
}

/** Names of device-mapper; those below come before those on top, by the order in which they were made. */
function suspendedOf(groupUuid: string, blocks: string): string[] {
  return readdirSync(blocks)
    .filter((name) => name.startsWith('dm-'))
    .sort((a, b) => Number(a.slice(3)) - Number(b.slice(3)))
    .filter((name) => attribute(join(blocks, name), 'uuid').startsWith(`LVM-${groupUuid}`))
    .filter((name) => isSuspended(name, blocks))
    .map((name) => attribute(join(blocks, name), 'name'));
}

function attribute(place: string, name: string): string {
  try {
    return readFileSync(join(place, 'dm', name), 'latin1').trim();
  } catch {
    return '';
  }
}
