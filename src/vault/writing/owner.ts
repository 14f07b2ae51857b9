/**
 * Identifies a writer or pruner by process, boot and machine, so that other processes can check whether it still
 * runs. A process of this machine can be found gone. For another machine only the heartbeat counts
 * (docs/formats/vault.md, "Stale writers and locks").
 */
import { readFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import type { Owner } from '../../api/vault/participant.ts';
import { unlessAbsent } from '../../base/files.ts';
import { bootId, identifyProcess, isAlive, pidNamespace } from '../../linux/process.ts';

export type { Owner } from '../../api/vault/participant.ts';

/** Returns the owner document of this process. */
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

/** Returns the content of /etc/machine-id; an empty string if there is none. Throws FILE_ERROR. */
export async function machineId(): Promise<string> {
  const path = '/etc/machine-id';
  return ((await unlessAbsent(path, readFile(path, 'utf8'))) ?? '').trim();
}

/**
 * Returns the known state of another process. `gone`: it has certainly ended. `rebooted`: this machine has booted
 * since, or it is a clone with this machine's name and ID; only the heartbeat decides. `unknown`: it runs, or it is
 * on another machine.
 */
export async function stateOf(
  owner: Owner,
  from: () => Promise<Owner> = thisProcess,
): Promise<'gone' | 'rebooted' | 'unknown'> {
  const here = await from();
  if (owner.machine === '' || owner.machine !== here.machine || owner.host !== here.host) return 'unknown';
  if (owner.boot !== here.boot) return 'rebooted';
  // Processes of another container have their own PIDs and are not visible here.
  if (!here.pid_namespace || owner.pid_namespace !== here.pid_namespace) return 'unknown';
  return (await isAlive({ pid: owner.pid, startTime: owner.start_time })) ? 'unknown' : 'gone';
}
