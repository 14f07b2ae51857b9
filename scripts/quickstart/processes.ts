/** Runs commands to their end, and programs that run beside the quickstart until it stops them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { existsSync, openSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Outcome {
  readonly code: number | null;
  /** Standard output and standard error, in the order in which they arrived. */
  readonly output: string;
}

/**
 * Runs a command to its end and returns its output. Throws if the command cannot be started. Ctrl-C reaches only a
 * command that is `interruptible`. An interrupted losetup or mount could leave a device or mount that the cleanup does
 * not know.
 */
export async function tryCommand(
  program: string,
  args: readonly string[],
  options: { interruptible: boolean } = { interruptible: false },
): Promise<Outcome> {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: !options.interruptible });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => {
      output += text;
    });
  await once(child, 'close');
  return { code: child.exitCode, output: output.trim() };
}

/** Runs a command to its end. Throws with its output if the exit code is not 0. */
export async function command(program: string, args: readonly string[]): Promise<string> {
  const { code, output } = await tryCommand(program, args);
  if (code !== 0)
    throw new Error(`${[program, ...args].join(' ')} failed (exit code ${code ?? '?'}): ${output}`);
  return output;
}

/** Unmounts. Tries for 5 seconds, because a reader that has just ended may keep the filesystem busy for a moment. */
export async function unmount(path: string): Promise<void> {
  const deadline = performance.now() + 5000;
  for (;;) {
    const { code, output } = await tryCommand('umount', [path]);
    if (code === 0) return;
    if (performance.now() > deadline) throw new Error(output);
    await sleep(100);
  }
}

/** Detaches a loop device, unless it serves another file in the meantime. */
export async function detachLoop(device: string, file: string): Promise<void> {
  const backing = `/sys/block/${basename(device)}/loop/backing_file`;
  if (existsSync(backing) && readFileSync(backing, 'utf8').startsWith(file))
    await command('losetup', ['--detach', device]);
}

/** Runs a command whose output goes to the terminal. Returns its exit code. */
export async function visibly(program: string, args: readonly string[]): Promise<number | null> {
  const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  await once(child, 'close');
  return child.exitCode;
}

export interface Background {
  readonly pid: number;
  /** Sends SIGTERM, and SIGKILL after 30 s. Resolves when the program has ended. */
  stop(): Promise<void>;
}

/**
 * Starts a program in its own session, with its output in the file `log`. Ctrl-C at the terminal then reaches only the
 * quickstart, which stops its programs in the right order.
 */
export async function background(
  program: string,
  args: readonly string[],
  log: string,
): Promise<Background & { readonly child: ChildProcess }> {
  const out = openSync(log, 'a');
  const child = spawn(program, args, { detached: true, stdio: ['ignore', out, out] });
  await once(child, 'spawn');
  return {
    child,
    pid: child.pid!,
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const ended = once(child, 'exit');
      child.kill('SIGTERM');
      const killer = setTimeout(() => child.kill('SIGKILL'), 30_000);
      await ended;
      clearTimeout(killer);
    },
  };
}

/**
 * Waits until the socket accepts connections. Throws with the log if the program has ended or does not answer in 15 s.
 */
export async function waitForSocket(
  socket: string,
  child: ChildProcess,
  name: string,
  log: string,
): Promise<void> {
  const deadline = performance.now() + 15_000;
  while (!(await accepts(socket))) {
    const ended = child.exitCode !== null || child.signalCode !== null;
    if (ended || performance.now() > deadline)
      throw new Error(
        `${name} ${ended ? 'ended at its start' : 'does not answer'}:\n${readFileSync(log, 'utf8')}`,
      );
    await sleep(20);
  }
}

function accepts(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}
