/**
 * Attaches an export as a device of the kernel's nbd client, with nbd-client(8). Another process may connect the same device
 * at the same time. So the record names the connecting process first, and then the connection. With these, a clean-up
 * disconnects a device only if it is ours (nbd-device.ts).
 */
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentError } from '../../base/errors.ts';
import { type NbdAttachment, freeNbdDevice, nbdAttachment, nbdUser } from './nbd-device.ts';
import type { MountRecord } from './mount-record.ts';
import { needTool, runTool, toolEnvironment } from './tools.ts';

export interface NbdConnection {
  /** Unix socket of the server, whose export is named `image`. */
  readonly socket: string;
  readonly sectorSize: number;
  readonly signal?: AbortSignal | undefined;
  /** Writes the record. */
  readonly save: () => Promise<void>;
}

/** The tools and the sysfs of the machine. Tests replace them. */
export interface NbdTools {
  readonly sys: string;
  /** Runs nbd-client to its end. Awaits `starting` with the pid before nbd-client does anything. */
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

/** Sets `record.file` and `record.nbd`. Throws NOT_SUPPORTED (no free device), MOUNT_FAILED, CANCELLED. */
export async function attachNbdDevice(
  record: MountRecord,
  { socket, sectorSize, signal, save }: NbdConnection,
  tools: NbdTools = systemTools,
): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    const device = await freeNbdDevice(tools.sys);
    if (device === undefined)
      throw new AgentError('NOT_SUPPORTED', 'the kernel has no free nbd device', {
        hint: 'run modprobe nbd',
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
      // Another process connected the device first: try the next one.
      if (user !== 'other' || attempt === attempts) throw error;
    }
  }
}

/** Disconnects the device if it is ours, and removes it from the record. Throws DEVICE_BUSY if it stays connected. */
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
      throw new AgentError(
        'DEVICE_BUSY',
        `${file!} is still in use, so ${record.device} cannot be detached`,
        {
          hint: `find its users with findmnt ${file!} and fuser -vm ${file!}`,
        },
      );
    await sleep(50);
  }
  record.file = undefined;
  record.nbd = undefined;
  await save();
}

/** Waits for the connection. An nbd-client without netlink returns early, and its child process connects a little later. */
async function seen(device: string, sys: string): Promise<NbdAttachment> {
  const deadline = performance.now() + seenMs;
  while (performance.now() < deadline) {
    const found = await nbdAttachment(device, sys);
    if (found !== undefined) return found;
    await sleep(10);
  }
  throw new AgentError(
    'MOUNT_FAILED',
    `${device} is still not connected ${seenMs / 1000} s after nbd-client ended`,
  );
}

const systemTools: NbdTools = {
  sys: '/sys',
  connect: async (args, starting, signal) => {
    const path = await needTool('nbd-client');
    // The shell waits for a line and then becomes nbd-client, with the same pid.
    const child = spawn('/bin/sh', ['-c', 'read -r go && exec "$@"', 'sh', path, ...args], {
      cwd: '/',
      env: toolEnvironment,
      stdio: ['pipe', 'pipe', 'pipe'],
      ...(signal === undefined ? {} : { signal }),
    });
    // Resolves also if it is killed: the state of the device is checked only after it has ended.
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
      // Without the line, the shell does not start nbd-client.
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
