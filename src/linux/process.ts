/** This process as the kernel sees it: locked memory, its identity across pid reuse, and the boot. */
import { readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../base/errors.ts';
import { checked, declare } from './libc.ts';

const MCL_CURRENT = 1;
const MCL_FUTURE = 2;
const MCL_ONFAULT = 4;

const mlockallCall = declare<[flags: number]>('mlockall', 'int', ['int']);

/**
 * Keeps every page that this process touches from now on in memory. Pages are locked as they are used
 * (MCL_ONFAULT, since Linux 4.4): the runtime reserves far more than it uses.
 */
export function lockMemory(): void {
  checked(mlockallCall, [MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT], 'mlockall');
}

/** A process that can be told from a later one of the same pid. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks after boot (field 22 of /proc/PID/stat). */
  readonly startTime: number;
}

/** Undefined where no such process exists, or where it has ended and waits to be reaped. */
export async function identifyProcess(pid: number, proc = '/proc'): Promise<ProcessIdentity | undefined> {
  try {
    return parseProcessStat(await readFile(join(proc, String(pid), 'stat'), 'utf8'));
  } catch (thrown) {
    // ESRCH: it ended while its file was read. Any other error says nothing of it.
    if (['ENOENT', 'ESRCH'].includes(errnoCode(thrown) ?? '')) return undefined;
    throw thrown;
  }
}

/** proc_pid_stat(5). The second field is in brackets and may hold anything, brackets too. */
export function parseProcessStat(text: string): ProcessIdentity | undefined {
  const pid = Number.parseInt(text, 10);
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  const startTime = Number(fields[19]);
  if (!(pid > 0) || !Number.isInteger(startTime) || state === 'Z' || state === 'X') return undefined;
  return { pid, startTime };
}

/**
 * The namespace in which pids of this process count, such as `pid:[4026531836]`. Empty where /proc shows the pids of
 * another one (pid_namespaces(7): mounted before the process got its own), or nothing of it.
 */
export async function pidNamespace(proc = '/proc'): Promise<string> {
  try {
    const status = await readFile(join(proc, 'self/status'), 'utf8');
    // One number for each namespace from that of /proc on.
    const pids = /^NSpid:\s*(.*)$/m.exec(status)?.[1]?.trim().split(/\s+/);
    return pids?.length === 1 ? await readlink(join(proc, 'self/ns/pid')) : '';
  } catch {
    return '';
  }
}

/** True where the very process lives, not another one with its pid. */
export async function isAlive(identity: ProcessIdentity, proc = '/proc'): Promise<boolean> {
  return (await identifyProcess(identity.pid, proc))?.startTime === identity.startTime;
}

/** Another one after every boot. */
export async function bootId(proc = '/proc'): Promise<string> {
  return (await readFile(join(proc, 'sys/kernel/random/boot_id'), 'utf8')).trim();
}

/** CLOCK_MONOTONIC in milliseconds: the same clock in all processes of this machine. */
export function machineMilliseconds(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
