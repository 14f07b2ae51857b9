/**
 * Checks whether SIGUSR1 opens Node's debugger in a process. Any user of the machine could then connect to
 * it.
 */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';

/**
 * Sends SIGUSR1 to the process. Fails if it ends, has a handler for the signal, or listens on a new TCP port.
 */
export function assertNoDebugger(pid: number, name: string): void {
  const before = listeningPorts(pid);
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  // Node's handler starts the debugger some time later, so the absence of a port proves little. There must be
  // no handler.
  assert.equal(mask(status, 'SigCgt') & sigusr1, 0n, `${name} (pid ${pid}) has a handler for SIGUSR1`);
  assert.notEqual((mask(status, 'SigBlk') | mask(status, 'SigIgn')) & sigusr1, 0n, `SIGUSR1 ends ${name}`);
  process.kill(pid, 'SIGUSR1');
  assert.deepEqual(listeningPorts(pid), before, name);
}

/** SIGUSR1 is signal 10 on x86 and ARM. */
const sigusr1 = 1n << 9n;

function mask(status: string, name: string): bigint {
  return BigInt(`0x${new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1] ?? '0'}`);
}

/** Returns the TCP ports that a process listens on, sorted. */
export function listeningPorts(pid: number): number[] {
  const sockets = new Set(
    readdirSync(`/proc/${pid}/fd`).map((fd) => {
      try {
        return /^socket:\[(\d+)\]$/.exec(readlinkSync(`/proc/${pid}/fd/${fd}`))?.[1];
      } catch {
        return undefined;
      }
    }),
  );
  return ['tcp', 'tcp6']
    .flatMap((table) => readFileSync(`/proc/net/${table}`, 'utf8').trim().split('\n').slice(1))
    .map((line) => line.trim().split(/\s+/))
    .filter(([, , , state, , , , , , inode]) => state === '0A' && sockets.has(inode))
    .map(([, local]) => parseInt(local?.split(':')[1] ?? '', 16))
    .sort((a, b) => a - b);
}
