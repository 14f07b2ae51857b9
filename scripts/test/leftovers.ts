/**
 * What a test run must not leave behind: loop devices, mounts, filesystems that the kernel still holds (a
 * frozen one stays after its umount), changed settings of the kernel, processes, scratch files. Compared with a
 * picture taken at the start.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** Set for everything that a run starts; a process that still carries it at the end was left behind. */
export const marker = 'AGENT_TEST_RUN';

/** Settings that dattod changes while something is frozen. */
const settings = ['/sys/kernel/rcu_expedited'];

export interface Picture {
  readonly things: ReadonlySet<string>;
}

/** Everything that counts, as lines for people. */
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
  // npm and tsc keep their compiled selves there.
  for (const name of list(scratch))
    if (name !== 'node-compile-cache') things.add(`scratch file ${join(scratch, name)}`);
  return things;
}

/** The processes that carry the marker of this run. */
export function processesOf(run: string): number[] {
  const pids = list('/proc').filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid);
  return pids
    .filter((pid) => read(`/proc/${pid}/environ`)?.split('\0').includes(`${marker}=${run}`) === true)
    .map(Number);
}

export function takePicture(run: string, scratch: string): Picture {
  return { things: look(run, scratch) };
}

/** What is there now and was not then; waits up to `patienceMs` for it to go by itself. */
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

/** The file's text; undefined where it is gone or may not be read, as with a process that just ended. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}
