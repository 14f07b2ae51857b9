/** A memory control group of the kernel, of version 1 or 2, removed at the end. Needs root. */
import { appendFileSync, existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { atEnd, type EndingTest } from './cleanup.ts';
import { waitFor } from './daemon.ts';

export interface MemoryGroup {
  readonly directory: string;
  /** Bytes. */
  limit(bytes: number): void;
  /** Returns the bytes that the kernel cannot reclaim. */
  held(): number;
  /** Returns the number of processes that the kernel killed for lack of memory. */
  killed(): number;
  /** Adds a process and all processes that it starts from now on. */
  join(pid: number): void;
}

/** Returns undefined if no group with the memory controller can be made here. */
export function memoryGroupFor(t: EndingTest): MemoryGroup | undefined {
  const name = `dattod-test-${process.pid}`;
  for (const version of [
    {
      ...{ top: '/sys/fs/cgroup/memory', limit: 'memory.limit_in_bytes' },
      ...{ events: 'memory.oom_control', anonymous: /^total_rss (\d+)$/m },
    },
    {
      ...{ top: '/sys/fs/cgroup', limit: 'memory.max' },
      ...{ events: 'memory.events', anonymous: /^anon (\d+)$/m },
    },
  ]) {
    const directory = join(version.top, name);
    try {
      mkdirSync(directory);
    } catch {
      continue;
    }
    atEnd(t, async () => {
      const empty = () => readFileSync(join(directory, 'cgroup.procs'), 'utf8') === '';
      if (existsSync(join(directory, 'cgroup.procs'))) await waitFor('the group is empty', 20_000, empty);
      rmdirSync(directory);
    });
    if (!existsSync(join(directory, version.limit))) continue;
    const number = (file: string, line: RegExp): number =>
      Number(line.exec(readFileSync(join(directory, file), 'utf8'))?.[1]);
    return {
      directory,
      limit: (bytes) => writeFileSync(join(directory, version.limit), String(bytes)),
      held: () => number('memory.stat', version.anonymous),
      killed: () => number(version.events, /^oom_kill (\d+)$/m),
      join: (pid) => appendFileSync(join(directory, 'cgroup.procs'), String(pid)),
    };
  }
  return undefined;
}
