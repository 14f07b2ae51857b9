/** Process facts from the kernel: locked memory, an identity that is safe against reused PIDs, and the boot ID. */
import { readFile, readlink } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode } from '../base/errors.ts';
import { checked, declare } from './libc.ts';

const MCL_CURRENT = 1;
const MCL_FUTURE = 2;
const MCL_ONFAULT = 4;

const mlockallCall = declare<[flags: number]>('mlockall', 'int', ['int']);

/**
 * Keeps every page that this process uses from now on in memory. A page is locked when it is first used (MCL_ONFAULT,
 * since Linux 4.4), because the runtime reserves far more memory than it uses.
 */
export function lockMemory(): void {
  checked(mlockallCall, [MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT], 'mlockall');
}

/** The identity of a process. It differs from that of a later process with the same PID. */
export interface ProcessIdentity {
  readonly pid: number;
  /** Clock ticks after boot (field 22 of /proc/PID/stat). */
  readonly startTime: number;
}

/** Returns the identity; undefined if no such process exists, or if it has ended and waits to be reaped. */
export async function identifyProcess(pid: number, proc = '/proc'): Promise<ProcessIdentity | undefined> {
  try {
    return parseProcessStat(await readFile(join(proc, String(pid), 'stat'), 'utf8'));
  } catch (thrown) {
    // ESRCH: the process ended while its file was read. After any other error its state is unknown.
    if (['ENOENT', 'ESRCH'].includes(errnoCode(thrown) ?? '')) return undefined;
    throw thrown;
  }
}

/** Parses proc_pid_stat(5). The second field is in brackets and may contain any text, also brackets. */
export function parseProcessStat(text: string): ProcessIdentity | undefined {
  const pid = Number.parseInt(text, 10);
  const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
  const [state] = fields;
  const startTime = Number(fields[19]);
  if (!(pid > 0) || !Number.isInteger(startTime) || state === 'Z' || state === 'X') return undefined;
  return { pid, startTime };
}

/**
 * Returns the PID namespace of this process, such as `pid:[4026531836]`. Returns an empty string if /proc shows the
 * PIDs of another namespace, or does not show the namespace. /proc shows another one if it was mounted before the
 * process got its own namespace (pid_namespaces(7)).
 */
export async function pidNamespace(proc = '/proc'): Promise<string> {
  try {
    const status = await readFile(join(proc, 'self/status'), 'utf8');
    // One number for each namespace, from the namespace of /proc inwards.
    const pids = /^NSpid:\s*(.*)$/m.exec(status)?.[1]?.trim().split(/\s+/);
    return pids?.length === 1 ? await readlink(join(proc, 'self/ns/pid')) : '';
  } catch {
    return '';
  }
}

/** True if exactly this process is alive, and not another one with the same PID. */
export async function isAlive(identity: ProcessIdentity, proc = '/proc'): Promise<boolean> {
  return (await identifyProcess(identity.pid, proc))?.startTime === identity.startTime;
}

/** Returns the boot ID, which differs after every boot. */
export async function bootId(proc = '/proc'): Promise<string> {
  return (await readFile(join(proc, 'sys/kernel/random/boot_id'), 'utf8')).trim();
}

/** Returns CLOCK_MONOTONIC in milliseconds: the same clock in all processes of this machine. */
export function machineMilliseconds(): number {
  return Number(process.hrtime.bigint()) / 1e6;
}
