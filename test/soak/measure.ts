/**
 * Measures the use of the machine by a daemon at this moment: memory, descriptors, threads, processes, files,
 * pins, loop devices.
 */
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { childrenOf } from '../helpers/backup.ts';
import type { TestDaemon } from '../helpers/daemon.ts';
import type { Sample, Tolerance } from './growth.ts';

const KiB = 1024;
const MiB = 1024 * KiB;

/** Allowed growth of each value from the second third of a run to the last third. */
export const tolerances: Readonly<Record<string, Tolerance>> = {
  memory: { absolute: 8 * MiB, share: 0.05 },
  descriptors: { absolute: 0, share: 0 },
  threads: { absolute: 0, share: 0 },
  // The kernel gives a process 65,530 (vm.max_map_count).
  mappings: { absolute: 50, share: 0 },
  processes: { absolute: 0, share: 0 },
  stateFiles: { absolute: 0, share: 0 },
  stateBytes: { absolute: 256 * KiB, share: 0.05 },
  runFiles: { absolute: 0, share: 0 },
  temporaryFiles: { absolute: 0, share: 0 },
  pins: { absolute: 0, share: 0 },
  loops: { absolute: 0, share: 0 },
  mounts: { absolute: 0, share: 0 },
  vaultFiles: { absolute: 8, share: 0.1 },
  vaultBytes: { absolute: 2 * MiB, share: 0.1 },
};

/** Directories of the run, in addition to those of the daemon. */
export interface Places {
  readonly vault: string;
  /** TMPDIR of all programs. */
  readonly temporary: string;
  /** All loop devices of the run lie on files here. */
  readonly scratch: string;
}

export function measure(daemon: TestDaemon, { vault, temporary, scratch }: Places): Sample {
  const children = childrenOf(daemon.pid);
  const state = filesBelow(daemon.stateDirectory);
  const stored = filesBelow(vault);
  return {
    memory: [daemon.pid, ...children].reduce((sum, pid) => sum + residentOf(pid), 0),
    descriptors: readdirSync(`/proc/${daemon.pid}/fd`).length,
    threads: readdirSync(`/proc/${daemon.pid}/task`).length,
    mappings: readFileSync(`/proc/${daemon.pid}/maps`, 'latin1').split('\n').length,
    processes: children.length,
    stateFiles: state.count,
    stateBytes: state.bytes,
    runFiles: filesBelow(daemon.runDirectory).count,
    temporaryFiles: filesBelow(temporary).count,
    pins: filesBelow(daemon.pinDirectory).count,
    loops: loopsOn(scratch),
    mounts: readFileSync('/proc/self/mountinfo', 'utf8')
      .split('\n')
      .filter((line) => line.includes(scratch)).length,
    vaultFiles: stored.count,
    vaultBytes: stored.bytes,
  };
}

/** Returns the bytes of anonymous memory and of mapped files; 0 if the process has ended. */
function residentOf(pid: number): number {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(/^VmRSS:\s+(\d+) kB/m.exec(status)?.[1] ?? 0) * KiB;
  } catch {
    return 0;
  }
}

function filesBelow(directory: string): { count: number; bytes: number } {
  let count = 0;
  let bytes = 0;
  if (!existsSync(directory)) return { count, bytes };
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    count++;
    // A file may be removed in between.
    const stat = statSync(join(entry.parentPath, entry.name), { throwIfNoEntry: false });
    if (stat?.isFile() === true) bytes += stat.size;
  }
  return { count, bytes };
}

function loopsOn(directory: string): number {
  return readdirSync('/sys/block').filter((name) => {
    const path = `/sys/block/${name}/loop/backing_file`;
    try {
      return existsSync(path) && readFileSync(path, 'utf8').startsWith(directory);
    } catch {
      return false;
    }
  }).length;
}
