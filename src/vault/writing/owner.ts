/**
 * Who a writer or a pruner is, so that others can tell whether it still runs: the process, the boot and the machine.
 * A process of this machine is known to be gone; of another machine only its heartbeat tells
 * (docs/formats/vault.md, "Stale writers and locks").
 */
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { unlessAbsent } from '../../base/files.ts';
import { bootId, identifyProcess, isAlive, pidNamespace } from '../../linux/process.ts';

export interface Owner {
  /** For people. */
  readonly host: string;
  /** /etc/machine-id; empty where there is none. */
  readonly machine: string;
  /** /proc/sys/kernel/random/boot_id. */
  readonly boot: string;
  /** The namespace in which `pid` counts; absent in documents of earlier versions, empty where it is not known. */
  readonly pid_namespace?: string | undefined;
  readonly pid: number;
  /** Clock ticks from boot to the start of the process. */
  readonly start_time: number;
}

/** The process that this runs in. */
export async function thisProcess(): Promise<Owner> {
  const identity = await identifyProcess(process.pid);
  return {
    host: hostname(),
    machine: await machineId(),
    boot: await bootId(),
    pid_namespace: await pidNamespace(),
    pid: process.pid,
    start_time: identity?.startTime ?? 0,
  };
}

/** /etc/machine-id; an empty string if there is none. Throws FILE_ERROR. */
export async function machineId(): Promise<string> {
  const path = '/etc/machine-id';
  return ((await unlessAbsent(path, readFile(path, 'utf8'))) ?? '').trim();
}

/**
 * What this process can tell of another one: `gone` for certain; `rebooted`: this machine has booted since, or a clone
 * with its name and id is meant, which only the heartbeat tells; `unknown`: it runs, or runs elsewhere.
 */
export async function stateOf(
  owner: Owner,
  from: () => Promise<Owner> = thisProcess,
): Promise<'gone' | 'rebooted' | 'unknown'> {
  const here = await from();
  if (owner.machine === '' || owner.machine !== here.machine || owner.host !== here.host) return 'unknown';
  if (owner.boot !== here.boot) return 'rebooted';
  // Another container's processes have pids of their own, and are not to be seen from here.
  if (!here.pid_namespace || owner.pid_namespace !== here.pid_namespace) return 'unknown';
  return (await isAlive({ pid: owner.pid, startTime: owner.start_time })) ? 'unknown' : 'gone';
}
