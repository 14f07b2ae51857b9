/** The processors that the calling thread may run on (sched_setaffinity(2); pid 0 is the calling thread only). */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../base/errors.ts';
import { checked, declare } from './libc.ts';

/** Room for 8192 processors, the kernel's own limit on x86-64. */
const maskBytes = 1024;

const setAffinity = declare<[pid: number, bytes: number, mask: Uint8Array]>('sched_setaffinity', 'int', [
  'int',
  'size_t',
  'const void *',
]);
const getAffinity = declare<[pid: number, bytes: number, mask: Uint8Array]>('sched_getaffinity', 'int', [
  'int',
  'size_t',
  'void *',
]);
const getCpu = declare<[]>('sched_getcpu', 'int', []);

/** The processors that the calling thread may run on, for `setThreadProcessors`. */
export function threadProcessors(): Uint8Array {
  const mask = new Uint8Array(maskBytes);
  checked(getAffinity, [0, maskBytes, mask], 'sched_getaffinity');
  return mask;
}

export function setThreadProcessors(mask: Uint8Array): void {
  checked(setAffinity, [0, mask.length, mask], 'sched_setaffinity');
}

/**
 * Moves the calling thread to one processor, and returns when it runs there. Returns false if that is not possible: the
 * processor is offline, or not allowed in the thread's control group.
 */
export function moveThreadTo(processor: number): boolean {
  const mask = new Uint8Array(maskBytes);
  mask[processor >>> 3] = 1 << (processor & 7);
  try {
    setThreadProcessors(mask);
  } catch (thrown) {
    if (errnoCode(thrown) === 'EINVAL') return false;
    throw thrown;
  }
  return checked(getCpu, [], 'sched_getcpu') === processor;
}

/** Numbers of the processors that are online. */
export function onlineProcessors(sys = '/sys'): number[] {
  return parseProcessorList(readFileSync(join(sys, 'devices/system/cpu/online'), 'utf8'));
}

/** Parses a list such as `0-3,8` (Documentation/admin-guide/cputopology.rst). */
export function parseProcessorList(text: string): number[] {
  const numbers: number[] = [];
  for (const part of text.trim().split(',')) {
    const [first, last] = part.split('-').map(Number);
    if (part === '' || first === undefined) continue;
    for (let number = first; number <= (last ?? first); number++) numbers.push(number);
  }
  return numbers;
}
