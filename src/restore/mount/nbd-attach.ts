/**
 * An export as a device of the kernel's nbd client, by nbd-client(8). Others may be after the same device at the same
 * moment, so what is written down before it is connected is the process that does it, and afterwards the connection:
 * whoever cleans up disconnects a device only where it is ours (nbd-device.ts).
 */
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { type NbdAttachment, freeNbdDevice, nbdAttachment, nbdUser } from './nbd-device.ts';
import type { MountRecord } from './record.ts';
import { needTool, runTool, toolEnvironment } from './tools.ts';

export interface NbdConnection {
  /** Of the export `image`. */
  readonly socket: string;
  readonly sectorSize: number;
  readonly signal?: AbortSignal | undefined;
  /** Writes the record. */
  readonly save: () => Promise<void>;
}

/** The machine; a test has another. */
export interface NbdTools {
  readonly sys: string;
  /** Runs nbd-client to its end; `starting` is awaited when its pid is known and before it does anything. */
  connect(
    args: readonly string[],
    starting: (pid: number) => Promise<void>,
    signal: AbortSignal | undefined,
  ): Promise<void>;
  disconnect(device: string): Promise<void>;
}

const attempts = 5;
const seenMs = 10_000;
const endMs = 10_000;

/** Fills in `record.file` and `record.nbd`. Throws NOT_SUPPORTED (no free device), MOUNT_FAILED, CANCELLED. */
export async function attachNbdDevice(
  record: MountRecord,
  { socket, sectorSize, signal, save }: NbdConnection,
  tools: NbdTools = systemTools,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const device = await freeNbdDevice(tools.sys);
    if (device === undefined)
      throw new AgentError('NOT_SUPPORTED', 'the kernel has no free nbd device', {
        hint: 'modprobe nbd',
      });
    const starting = (pid: number): Promise<void> => {
      record.file = device;
      record.nbd = { pid, connection: undefined };
      return save();
    };
    const args = ['-unix', socket, device, '-name', 'image', '-readonly', '-block-size', String(sectorSize)];
    try {
      await tools.connect(args, starting, signal);
      record.nbd = await seen(device, tools.sys);
      await save();
      return;
    } catch (error) {
      const user = await nbdUser(device, record.nbd, tools.sys);
      await detachNbdDevice(record, save, tools);
      signal?.throwIfAborted();
      // Somebody was quicker.
      if (user !== 'other' || attempt === attempts) throw error;
    }
  }
}

/** Disconnects the device where it is ours, and forgets it. Throws DEVICE_BUSY where it stays. */
export async function detachNbdDevice(
  record: MountRecord,
  save: () => Promise<void>,
  tools: NbdTools = systemTools,
): Promise<void> {
  const { file } = record;
  const isOurs = async (): Promise<boolean> =>
    file !== undefined && (await nbdUser(file, record.nbd, tools.sys)) === 'ours';
  const deadline = performance.now() + endMs;
  while (await isOurs()) {
    await tools.disconnect(file!);
    if (!(await isOurs())) break;
    if (performance.now() > deadline)
      throw new AgentError('DEVICE_BUSY', `${file!} is still in use, so ${record.device} cannot be let go`, {
        hint: `see findmnt ${file!} and fuser -vm ${file!}`,
      });
    await sleep(50);
  }
  record.file = undefined;
  record.nbd = undefined;
  await save();
}

/** An nbd-client without netlink leaves a process behind, which connects the device in a moment. */
async function seen(device: string, sys: string): Promise<NbdAttachment> {
  const deadline = performance.now() + seenMs;
  while (performance.now() < deadline) {
    const found = await nbdAttachment(device, sys);
    if (found !== undefined) return found;
    await sleep(10);
  }
  throw new AgentError('MOUNT_FAILED', `${device} is not connected ${seenMs / 1000} s after nbd-client`);
}

const systemTools: NbdTools = {
  sys: '/sys',
  connect: async (args, starting, signal) => {
    const path = await needTool('nbd-client');
    // The shell waits for a line and then becomes nbd-client, under the same pid.
    const child = spawn('/bin/sh', ['-c', 'read -r go && exec "$@"', 'sh', path, ...args], {
      cwd: '/',
      env: toolEnvironment,
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(signal === undefined ? {} : { signal }),
    });
    // Also where it is killed: what it did is looked at when nothing more comes of it.
    const ended = new Promise<string | undefined>((resolve) => {
      child.on('close', (code, killer) => {
        const how = killer === null ? `exit code ${code}` : `signal ${killer}`;
        resolve(code === 0 ? undefined : how);
      });
      child.on('error', (error) => {
        if (child.pid === undefined) resolve(String(error));
      });
    });
    const said = Promise.all([text(child.stderr), text(child.stdout)]).catch(() => []);
    child.stdin.on('error', () => undefined);
    try {
      if (child.pid !== undefined) await starting(child.pid);
    } catch (error) {
      // Without the line nothing is connected.
      child.kill('SIGKILL');
      throw error;
    }
    child.stdin.end('go\n');
    const how = await ended;
    if (how === undefined) return;
    const lines = (await said).join('\n').trim().split('\n').slice(-3).join('; ');
    throw new AgentError('MOUNT_FAILED', `nbd-client failed (${how}): ${lines.slice(0, 600)}`);
  },
  disconnect: async (device) => {
    await runTool('nbd-client', ['-d', device], { allow: 'any' });
  },
};
