/** Commands that are waited for, and programs that run beside the quickstart until they are stopped. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect } from 'node:net';
import { existsSync, openSync, readFileSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

export interface Outcome {
  readonly code: number | null;
  /** Standard output and standard error in the order they came. */
  readonly output: string;
}

/**
 * Runs a command to its end; its output is kept. Throws where it cannot be run at all. Ctrl-C reaches it only
 * where it is `interruptible`: a losetup or mount that was cut off could leave what nobody then knows of.
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

/** The same, and anything but exit code 0 is an error that shows what it said. */
export async function command(program: string, args: readonly string[]): Promise<string> {
  const { code, output } = await tryCommand(program, args);
  if (code !== 0)
    throw new Error(`${[program, ...args].join(' ')} failed (exit code ${code ?? '?'}): ${output}`);
  return output;
}

/** Unmounts; a reader that was just ended may keep the filesystem busy for a moment. */
export async function unmount(path: string): Promise<void> {
  const deadline = performance.now() + 5000;
  for (;;) {
    const { code, output } = await tryCommand('umount', [path]);
    if (code === 0) return;
    if (performance.now() > deadline) throw new Error(output);
    await sleep(100);
  }
}

/** Detaches a loop device, unless it serves another file by now. */
export async function detachLoop(device: string, file: string): Promise<void> {
  const backing = `/sys/block/${basename(device)}/loop/backing_file`;
  if (existsSync(backing) && readFileSync(backing, 'utf8').startsWith(file))
    await command('losetup', ['--detach', device]);
}

/** Runs a command that talks to the person at the terminal. Resolves with its exit code. */
export async function visibly(program: string, args: readonly string[]): Promise<number | null> {
  const child = spawn(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  await once(child, 'close');
  return child.exitCode;
}

export interface Background {
  readonly pid: number;
  /** SIGTERM, then SIGKILL after half a minute; resolves when it has ended. */
  stop(): Promise<void>;
}

/**
 * Starts a program in a session of its own, so that Ctrl-C at the terminal reaches the quickstart alone, which
 * then stops it in its turn. What it says goes to `log`.
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

/** Waits until somebody accepts connections on the socket. Throws with the log where the program ended. */
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
