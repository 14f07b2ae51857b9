/**
 * Runs dattod and dattocli (programs.ts: from build/ or the sources) with every path in a temporary directory
 * of their own. So tests can run at the same time as other tests and as an installed daemon. Needs root
 * (dattod does).
 *
 *     const daemon = await startDaemon();
 *     try { const { code, stdout } = await dattocli(['devices', '--json'], daemon); }
 *     finally { await daemon.stop(); }
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { programCommand } from './programs.ts';

export interface ProgramResult {
  /** Exit code; null if a signal ended the program. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface DaemonPaths {
  readonly directory: string;
  readonly socket: string;
  readonly pidFile: string;
  readonly logFile: string;
  readonly stateDirectory: string;
  readonly runDirectory: string;
  readonly config: string;
  /** Directory on the kernel's bpffs in which trackers are pinned. */
  readonly pinDirectory: string;
  /** The options that set these paths for dattod, except the configuration. */
  readonly arguments: readonly string[];
}

export interface TestDaemon extends DaemonPaths {
  readonly child: ChildProcess;
  readonly pid: number;
  /** Returns the log of dattod so far. */
  log(): string;
  /**
   * Sends SIGTERM, waits for the end and removes the directory. Resolves with the exit code. Safe to call
   * twice.
   */
  stop(): Promise<number | null>;
  /** Sends SIGKILL. The directory stays, for a second `startDaemon({ paths })`. */
  kill(): Promise<void>;
  /** Sends SIGTERM. The directory and the pinned trackers stay, for a second `startDaemon({ paths })`. */
  end(): Promise<void>;
}

export interface StartOptions {
  /** Paths of an earlier daemon, to start it again. */
  readonly paths?: DaemonPaths;
  /** Further options of dattod. */
  readonly arguments?: readonly string[];
  /**
   * Program to run, relative to this repository. `test/helpers/dattod-fake.ts` has an engine that copies
   * nothing; `build/dattod` is the built program.
   */
  readonly entry?: string;
  readonly environment?: Readonly<Record<string, string>>;
  /**
   * Tracks writes if the machine can. Default false, so that a test is the same on every kernel; its jobs may
   * still ask for a tracker. Has no effect if `arguments` name a configuration.
   */
  readonly tracking?: boolean;
}

/** Makes the directory of a daemon without starting it. */
export function daemonPaths(): DaemonPaths {
  const directory = mkdtempSync(join(tmpdir(), 'dattod-test-'));
  const paths = {
    directory,
    socket: join(directory, 'dattod.sock'),
    pidFile: join(directory, 'dattod.pid'),
    logFile: join(directory, 'dattod.log'),
    stateDirectory: join(directory, 'state'),
    runDirectory: join(directory, 'run'),
    config: join(directory, 'config.json'),
    pinDirectory: join('/sys/fs/bpf', basename(directory)),
  };
  return {
    ...paths,
    arguments: [
      ...['--socket', paths.socket, '--pid-file', paths.pidFile, '--log-file', paths.logFile],
      ...['--state-dir', paths.stateDirectory, '--run-dir', paths.runDirectory],
      ...['--pin-dir', paths.pinDirectory],
    ],
  };
}

/** Starts `dattod --foreground` and waits until it answers on its socket (60 s at most). */
export async function startDaemon(options: StartOptions = {}): Promise<TestDaemon> {
  const paths = options.paths ?? daemonPaths();
  const given = options.arguments?.includes('--config') === true;
  if (!given)
    writeFileSync(
      paths.config,
      JSON.stringify(options.tracking === true ? {} : { job_options: { tracker: 'none' } }),
    );
  const [program, ...first] = programCommand(options.entry ?? 'src/bin/dattod.ts');
  const child = spawn(
    program,
    [
      ...first,
      '--foreground',
      ...paths.arguments,
      ...(given ? [] : ['--config', paths.config]),
      ...(options.arguments ?? []),
    ],
    {
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { UV_THREADPOOL_SIZE: '64', ...process.env, ...options.environment },
    },
  );
  let stderr = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
  });
  const ended = once(child, 'exit');
  const log = () => {
    try {
      return readFileSync(paths.logFile, 'utf8');
    } catch {
      return '';
    }
  };
  await waitFor('dattod answers', 60_000, async () => {
    if (child.exitCode !== null || child.signalCode !== null)
      throw new Error(`dattod ended at its start: ${stderr}\n${log()}`);
    return isHealthy(paths.socket);
  }).catch((error: unknown) => {
    child.kill('SIGKILL');
    throw error;
  });
  return {
    ...paths,
    child,
    pid: child.pid!,
    log,
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
      const killer = setTimeout(() => child.kill('SIGKILL'), 40_000);
      await ended;
      clearTimeout(killer);
      rmSync(paths.directory, { recursive: true, force: true });
      // A pinned tracker continues to track until its last name is removed.
      rmSync(paths.pinDirectory, { recursive: true, force: true });
      return child.exitCode;
    },
    kill: async () => {
      child.kill('SIGKILL');
      await ended;
    },
    end: async () => {
      child.kill('SIGTERM');
      await ended;
    },
  };
}

export interface RunOptions {
  /** A descriptor for standard output. Default: the output is kept. */
  readonly output?: number;
  /** Acts like Ctrl-C: the program gets SIGINT and may still print a message. */
  readonly signal?: AbortSignal;
  readonly environment?: Readonly<Record<string, string>>;
  /** Gets what the program writes to standard output, as it comes. */
  readonly onOutput?: (text: string) => void;
  /** Gets what the program writes to standard error, as it comes. */
  readonly onError?: (text: string) => void;
}

/** Runs dattocli to its end with the socket of `daemon`. */
export async function dattocli(
  args: readonly string[],
  daemon?: Pick<DaemonPaths, 'socket'>,
  options: RunOptions = {},
): Promise<ProgramResult> {
  const socket = daemon === undefined ? [] : ['--socket', daemon.socket];
  return runProgram('src/bin/dattocli.ts', [...args, ...socket], options);
}

/** Runs a program to its end (90 s at most, then SIGKILL). */
export async function runProgram(
  entry: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<ProgramResult> {
  const [program, ...first] = programCommand(entry);
  const child = spawn(program, [...first, ...args], {
    stdio: ['ignore', options.output ?? 'pipe', 'pipe'],
    env: { ...process.env, ...options.environment },
    timeout: 90_000,
    killSignal: 'SIGKILL',
  });
  options.signal?.addEventListener('abort', () => child.kill('SIGINT'), { once: true });
  let stdout = '';
  let stderr = '';
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    stdout += text;
    options.onOutput?.(text);
  });
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    stderr += text;
    options.onError?.(text);
  });
  await once(child, 'close');
  return { code: child.exitCode, stdout, stderr };
}

/** Calls `condition` every 20 ms until it returns true. Throws after `ms` milliseconds. */
export async function waitFor(
  what: string,
  ms: number,
  condition: () => boolean | Promise<boolean>,
): Promise<void> {
  const deadline = performance.now() + ms;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`waited ${ms} ms in vain: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

/** Returns true if a daemon answers on the socket. */
export function isHealthy(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    request({ socketPath: socket, path: '/v1/health', timeout: 2000 }, (response) => {
      response.resume().once('end', () => resolve(response.statusCode === 200));
    })
      .once('error', () => resolve(false))
      .end();
  });
}
