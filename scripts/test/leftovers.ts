/**
 * Finds things that a test run must not leave behind, by comparison with a picture of the machine at the start. They
 * are loop devices, mounts, pins in the kernel, changed settings of the kernel, processes and scratch files. They are
 * also filesystems that the kernel still holds, because a frozen filesystem stays after its umount.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** An environment variable of all processes that a run starts. A process that has it after the run was left behind. */
export const marker = 'AGENT_TEST_RUN';

/** Settings that dattod changes while a filesystem is frozen. */
const settings = ['/sys/kernel/rcu_expedited'];

export interface Picture {
  readonly things: ReadonlySet<string>;
}

/** Returns the things that exist now, one line each, for people. */
function look(run: string, scratch: string): Set<string> {
  const things = new Set<string>();
  for (const name of list('/sys/block')) {
    const backing = read(`/sys/block/${name}/loop/backing_file`);
    if (backing !== undefined) things.add(`loop device /dev/${name} on ${backing.trim()}`);
  }
  for (const line of (read('/proc/self/mountinfo') ?? '').split('\n')) {
    const fields = line.split(' ');
    if (fields[4] !== undefined) things.add(`mount ${fields[4]} (device ${fields[2] ?? ''})`);
  }
  for (const name of list('/sys/fs/bpf')) things.add(`pinned in the kernel: /sys/fs/bpf/${name}`);
  for (const path of settings) things.add(`setting ${path} = ${read(path)?.trim() ?? 'none'}`);
  for (const type of ['ext4', 'xfs', 'btrfs'])
    for (const name of list(`/sys/fs/${type}`))
      if (/^(loop\d+|[0-9a-f-]{36})/.test(name)) things.add(`${type} filesystem held by the kernel: ${name}`);
  for (const pid of processesOf(run)) {
    const command = (read(`/proc/${pid}/cmdline`) ?? '').replaceAll('\0', ' ').trim();
    things.add(`process ${pid}: ${command.slice(0, 200)}`);
  }
  // npm and tsc keep their own compiled code in node-compile-cache.
  for (const name of list(scratch))
    if (name !== 'node-compile-cache') things.add(`scratch file ${join(scratch, name)}`);
  return things;
}

/** Returns the processes whose environment has the marker of this run. */
export function processesOf(run: string): number[] {
  const pids = list('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  return pids
    .filter((pid) => read(`/proc/${pid}/environ`)?.split('\0').includes(`${marker}=${run}`) === true)
    .map(Number);
}

export function takePicture(run: string, scratch: string): Picture {
  return { things: look(run, scratch) };
}

/**
 * Returns the things that exist now and not in `before`. Waits up to `patienceMs` until they disappear by themselves.
 */
export async function leftovers(
  before: Picture,
  run: string,
  scratch: string,
  patienceMs = 10_000,
): Promise<string[]> {
  const deadline = performance.now() + patienceMs;
  for (;;) {
    const left = [...look(run, scratch)].filter((thing) => !before.things.has(thing));
    if (left.length === 0 || performance.now() > deadline) return left;
    await sleep(250);
  }
}

function list(path: string): string[] {
  return existsSync(path) ? readdirSync(path) : [];
}

/** Returns the file's text. Undefined if the file is gone or may not be read, for example that of an ended process. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
