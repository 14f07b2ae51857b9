/**
 * The common parts of the helpers for foreign NBD servers (nbdkit.ts, qemu-nbd.ts, nbd-server.ts): a process
 * with its own directory, waiting for a condition, and stopping by its pid.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface NbdServerProcess {
  /** `nbd://…` or `nbd+unix://…` of the server's default export. */
  readonly uri: string;
  /** Loopback port, or undefined on a Unix socket. */
  readonly port: number | undefined;
  /** Path of the Unix socket, or undefined on TCP. */
  readonly socket: string | undefined;
  readonly pid: number;
  /** A temporary directory that `stop` removes. */
  readonly directory: string;
  /** Returns the server's standard error so far. */
  readonly stderr: () => string;
  /** Sends SIGKILL, like a crash. The directory stays until `stop`. */
  readonly kill: () => Promise<void>;
  /** Sends SIGTERM, waits for the end (SIGKILL after 5 s), and removes the directory. Safe to call twice. */
  readonly stop: () => Promise<void>;
}

export interface SpawnedServer {
  readonly child: ChildProcess;
  readonly stderr: () => string;
  /** Resolves when `condition` holds. Throws if the process ends before, or after 60 s. */
  ready(condition: () => boolean | Promise<boolean>): Promise<void>;
}

export function temporaryDirectory(name: string): string {
  return mkdtempSync(join(tmpdir(), `${name}-`));
}

/** Returns a loopback port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** Polls until `condition` holds; throws after `ms` milliseconds with `what`. */
export async function waitFor(
  condition: () => boolean | Promise<boolean>,
  what: string,
  ms = 60_000,
): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`${what}: not within ${ms} ms`);
    await sleep(10);
  }
}

export function spawnServer(program: string, parameters: readonly string[]): SpawnedServer {
  const child = spawn(program, parameters, { stdio: ['ignore', 'ignore', 'pipe'] });
  let text = '';
  let failure: string | undefined;
  child.stderr.on('data', (chunk: Buffer) => (text += chunk.toString()));
  child.on('error', (error) => (failure = error.message));
  child.on('exit', (code, signal) => (failure = `ended with ${String(code ?? signal)}`));
  return {
    child,
    stderr: () => text,
    ready: async (condition) => {
      await waitFor(() => {
        if (failure !== undefined && child.exitCode !== 0)
          throw new Error(`${program} ${parameters.join(' ')}: ${failure}\n${text}`);
        return condition();
      }, `${program} ready\n${text}`);
    },
  };
}

/** Returns the number in a pid file, or undefined if there is none yet. */
export function readPid(path: string): number | undefined {
  try {
    const pid = Number(readFileSync(path, 'utf8').trim());
    return pid > 0 ? pid : undefined;
  } catch {
    return undefined;
  }
}

/** Returns true if a process accepts connections at the port. */
export async function accepts(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    // A zombie that its parent has not yet waited for counts as ended.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'));
  } catch {
    return false;
  }
}

export async function endProcess(pid: number, signal: 'SIGTERM' | 'SIGKILL'): Promise<void> {
  if (!isAlive(pid)) return;
  process.kill(pid, signal);
  try {
    await waitFor(() => !isAlive(pid), `end of process ${pid}`, 5000);
  } catch (error) {
    if (signal === 'SIGKILL') throw error;
    await endProcess(pid, 'SIGKILL');
  }
}

export function serverProcess(options: {
  readonly port?: number | undefined;
  readonly socket?: string | undefined;
  readonly pid: number;
  readonly directory: string;
  readonly stderr: () => string;
  readonly secure?: boolean;
}): NbdServerProcess {
  const { pid, directory, port, socket } = options;
  const scheme = options.secure === true ? 'nbds' : 'nbd';
  return {
    uri:
      socket === undefined
        ? `${scheme}://127.0.0.1:${String(port)}`
        : `${scheme}+unix:///?socket=${encodeURIComponent(socket)}`,
    port,
    socket,
    pid,
    directory,
    stderr: options.stderr,
    kill: () => endProcess(pid, 'SIGKILL'),
    stop: async () => {
      try {
        await endProcess(pid, 'SIGTERM');
      } finally {
        rmSync(directory, { recursive: true, force: true });
      }
    },
  };
}

export interface Place {
  /** Loopback port, or undefined on a Unix socket. */
  readonly port: number | undefined;
  readonly socket: string | undefined;
  /** The server writes its pid to this file when it listens. */
  readonly pidFile: string;
}

/**
 * Starts a server on its own Unix socket (or on `socket`). With `tcp`, starts it at a free loopback port or
 * at the given one.
 */
export async function startServer(
  program: string,
  options: {
    readonly tcp?: boolean | number | undefined;
    readonly socket?: string | undefined;
    readonly secure: boolean;
  },
  parametersFor: (place: Place) => readonly string[],
): Promise<NbdServerProcess> {
  const directory = temporaryDirectory(program);
  try {
    const { tcp = false, secure } = options;
    const port = tcp === false ? undefined : tcp === true ? await freePort() : tcp;
    const socket = port === undefined ? (options.socket ?? join(directory, 'socket')) : undefined;
    const pidFile = join(directory, 'pid');
    const server = spawnServer(program, parametersFor({ port, socket, pidFile }));
    await server.ready(() => readPid(pidFile) !== undefined);
    return serverProcess({ port, socket, pid: readPid(pidFile)!, directory, stderr: server.stderr, secure });
  } catch (error) {
    rmSync(directory, { recursive: true, force: true });
    throw error;
  }
}
