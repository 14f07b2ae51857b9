/**
 * The memory that this process can still use. It is the available memory of the machine (MemAvailable), or less if a
 * control group of this process or a group above it has a limit. Node's own `process.availableMemory()` reads only the
 * limit of the innermost group, and counts the page cache of files as memory in use.
 *
 * cgroup v2: Documentation/admin-guide/cgroup-v2.rst, "Memory Interface Files". At memory.max the kernel kills, and at
 * memory.high it slows the process down until it stands still: usage must reach neither limit. cgroup v1:
 * Documentation/admin-guide/cgroup-v1/memory.rst.
 */
import { readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { KiB } from '../base/bytes.ts';
import { declare } from './libc.ts';
import { type MountEntry, parseMountinfo } from './mountinfo.ts';

export interface AvailableMemory {
  /** Available memory without swap. */
  readonly bytes: number;
  /** Available memory with the usable swap. A process that needs more is killed. */
  readonly withSwap: number;
  /** Path of the control group that limits `withSwap`; undefined if the machine limits it. */
  readonly group: string | undefined;
}

interface Version {
  readonly limits: readonly string[];
  readonly usage: string;
  /** Lines of memory.stat for the page cache of files. The kernel frees it before it kills a process. */
  readonly files: readonly string[];
  readonly swap: { readonly limit: string; readonly usage: string; readonly holdsMemory: boolean };
}

const versions: Readonly<Record<'cgroup' | 'cgroup2', Version>> = {
  cgroup: {
    limits: ['memory.limit_in_bytes'],
    usage: 'memory.usage_in_bytes',
    files: ['total_active_file', 'total_inactive_file'],
    swap: {
      ...{ limit: 'memory.memsw.limit_in_bytes', usage: 'memory.memsw.usage_in_bytes' },
      holdsMemory: true,
    },
  },
  cgroup2: {
    limits: ['memory.max', 'memory.high'],
    usage: 'memory.current',
    files: ['active_file', 'inactive_file'],
    swap: { limit: 'memory.swap.max', usage: 'memory.swap.current', holdsMemory: false },
  },
};

/** A limit of v1 from this value on means no limit (PAGE_COUNTER_MAX). */
const noLimit = 2 ** 60;

/** Returns the available memory. `root` is the root of the file tree, for tests. */
export async function availableMemory(root = '/'): Promise<AvailableMemory> {
  const meminfo = (await text(join(root, 'proc/meminfo'))) ?? '';
  const kilobytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(meminfo)?.[1] ?? NaN) * KiB;
  const swap = kilobytes('SwapFree') || 0;
  let bytes = kilobytes('MemAvailable');
  if (Number.isNaN(bytes)) bytes = process.availableMemory();
  let withSwap = bytes + swap;
  let narrowest: string | undefined;
  for (const { group, top, version } of await memoryGroups(root))
    for (let at = group; ; at = dirname(at)) {
      const left = await leftIn(join(root, at), version, swap);
      bytes = Math.min(bytes, left.bytes);
      if (left.withSwap < withSwap) [withSwap, narrowest] = [left.withSwap, at];
      if (at === top || at === '/') break;
    }
  return { bytes, withSwap, group: narrowest };
}

interface MemoryGroup {
  /** Directory of this process's group. */
  readonly group: string;
  /** Directory of the uppermost group that can be seen. */
  readonly top: string;
  readonly version: Version;
}

async function memoryGroups(root: string): Promise<MemoryGroup[]> {
  const mounts = parseMountinfo(Buffer.from((await text(join(root, 'proc/self/mountinfo'))) ?? '', 'latin1'));
  const groups: MemoryGroup[] = [];
  // Lines of /proc/PID/cgroup: `0::/path` (v2), `4:memory:/path` (v1).
  for (const line of ((await text(join(root, 'proc/self/cgroup'))) ?? '').split('\n')) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (controllers === undefined || path === undefined) continue;
    const type = controllers === '' ? 'cgroup2' : 'cgroup';
    if (type === 'cgroup' && !controllers.split(',').includes('memory')) continue;
    const mount = mounts.findLast((each) => each.type === type && (type === 'cgroup2' || hasMemory(each)));
    if (mount !== undefined) groups.push({ ...placeIn(mount, path), version: versions[type] });
  }
  return groups;
}

function hasMemory({ superOptions }: MountEntry): boolean {
  return superOptions.split(',').includes('memory');
}

/** Finds the group's directory. In a container the mount may show only the own group, or be of another namespace. */
function placeIn({ root, path: top }: MountEntry, path: string): { group: string; top: string } {
  const below =
    root === '/' ? path : path === root || path.startsWith(`${root}/`) ? path.slice(root.length) : '';
  return { group: below.split('/').includes('..') ? top : join(top, below.replace(/\/$/, '')), top };
}

/** Bytes left until the lowest limit of this group; Infinity without a limit. `swapFree` is the machine's free swap. */
async function leftIn(
  group: string,
  { limits, usage, files, swap }: Version,
  swapFree: number,
): Promise<{ bytes: number; withSwap: number }> {
  const number = async (name: string): Promise<number> => Number((await text(join(group, name))) ?? NaN);
  const limit = narrowest(await Promise.all(limits.map(number)));
  if (limit === Infinity) return { bytes: Infinity, withSwap: Infinity };
  const stat = (await text(join(group, 'memory.stat'))) ?? '';
  const cached = files.reduce(
    (sum, name) => sum + Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(stat)?.[1] ?? 0),
    0,
  );
  const left = (most: number, used: number): number => Math.max(0, most - (used || 0));
  const bytes = left(limit, Math.max(0, (await number(usage)) - cached));
  const swapLimit = narrowest([await number(swap.limit)]);
  const swapLeft = left(swapLimit, (await number(swap.usage)) - (swap.holdsMemory ? cached : 0));
  return {
    bytes,
    withSwap: swap.holdsMemory ? Math.min(bytes + swapFree, swapLeft) : bytes + Math.min(swapFree, swapLeft),
  };
}

/** Returns the lowest limit; Infinity if there is none (`max` in v2, a huge number in v1). */
function narrowest(values: readonly number[]): number {
  return Math.min(...values.filter((value) => value < noLimit));
}

/** Returns the file's text; undefined without a file: the root group has no limits, and a controller may be off. */
async function text(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'latin1');
  } catch {
    return undefined;
  }
}

const trim = declare<[pad: number]>('malloc_trim', 'int', ['size_t']);

/** Returns freed memory to the kernel, so it counts as available (malloc_trim(3)). */
export function giveBackMemory(): void {
  trim(0);
}
