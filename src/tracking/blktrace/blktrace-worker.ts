/**
 * Entry of the thread that reads the traces of all tracked disks, so that the daemon's main thread never waits for
 * them. It drains them in turn: sooner if they were fuller, and at once for a take. It opens only files of debugfs,
 * sysfs and /proc, because other filesystems may be frozen.
 */
import { setPriority } from 'node:os';
import { parentPort } from 'node:worker_threads';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { answerCalls, type CallHandlers } from '../../base/thread-calls.ts';
import {
  moveThreadTo,
  onlineProcessors,
  setThreadProcessors,
  threadProcessors,
} from '../../linux/affinity.ts';
import { DiskReader, TraceLost } from './disk-reader.ts';
import { drain, type Processors } from './drain.ts';
import { Follower } from './follower.ts';
import { changedIdentity } from './identity.ts';
import { DirtyMap } from './dirty-map.ts';
import type { AddedDevice, ReaderProtocol, TakenMap, TracedDisk } from './reader-messages.ts';
import { DebugfsRelayFiles } from './relay-files.ts';

const port = parentPort;
if (port === null) throw new Error('blktrace-worker is started as a thread by the blktrace tracker');

/** The longest and the shortest pause between two drains, milliseconds. A full buffer is drained without a pause. */
const longestPause = 100;
const shortestPause = 5;

interface Traced {
  readonly disk: TracedDisk;
  readonly reader: DiskReader;
  readonly devices: Map<string, AddedDevice>;
}

interface Take {
  readonly args: ReaderProtocol['calls']['take']['args'];
  readonly resolve: (taken: TakenMap) => void;
  readonly reject: (error: unknown) => void;
}

const traced = new Map<string, Traced>();
const buffer = Buffer.alloc(1 << 20);
const allowed = threadProcessors();
const processors: Processors = {
  online: () => onlineProcessors(),
  moveTo: moveThreadTo,
  release: () => setThreadProcessors(allowed),
};
try {
  // Priority of this thread alone. The kernel has to hold the records until this thread reads them.
  setPriority(-10);
} catch {
  // Not root: then a later step fails and reports the reason.
}

let timer: NodeJS.Timeout | undefined;
let pause = longestPause;
let takes: Take[] = [];

const calls: CallHandlers<ReaderProtocol> = {
  openDisk: (disk) => {
    const reader = new DiskReader(disk.name, openFiles(disk), new Follower(disk.following));
    traced.set(disk.disk, { disk, reader, devices: new Map() });
    pause = shortestPause;
    schedule(pause);
    return undefined;
  },
  closeDisk: ({ disk }) => {
    traced.get(disk)?.reader.files.close();
    traced.delete(disk);
    return undefined;
  },
  add: (added) => {
    const { disk, key, device, unit, maps } = added;
    const one = traced.get(disk);
    if (one === undefined) throw new AgentError('EPOCH_ENDED', `the trace of ${device.path} has ended`);
    one.reader.follower.add(key, device.partition?.start ?? 0, new DirtyMap(device.size, unit, maps));
    one.devices.set(key, added);
    return undefined;
  },
  remove: ({ disk, key }) => {
    const one = traced.get(disk);
    one?.reader.follower.remove(key);
    one?.devices.delete(key);
    return undefined;
  },
  take: (args) =>
    new Promise((resolve, reject) => {
      // Takes that come together share one drain.
      takes.push({ args, resolve, reject });
      if (takes.length === 1) setImmediate(serve);
    }),
};

const owner = answerCalls<ReaderProtocol>(port, {
  answer: (name, args) => calls[name](args),
  notices: {
    commit: ({ disk, key, generation }) => {
      const one = traced.get(disk);
      one?.reader.follower.dirtyMap(key)?.commit(generation);
      if (one !== undefined) gauge(one);
    },
    end: () => {
      for (const { reader } of traced.values()) reader.files.close();
      clearTimeout(timer);
      port.close();
    },
  },
});

function schedule(ms: number): void {
  clearTimeout(timer);
  timer = traced.size === 0 ? undefined : setTimeout(turn, ms);
}

function turn(): void {
  const most = drainAll();
  // If a buffer is more than an eighth full, drain again at once. If few records come, the pause doubles.
  if (most > 1 / 8) pause = 0;
  else if (most > 1 / 64) pause = shortestPause;
  else pause = Math.min(longestPause, Math.max(shortestPause, pause * 2));
  schedule(pause);
}

/** Reads all traces. Returns how full the fullest buffer was, as a fraction of one. */
function drainAll(times?: Map<string, number>): number {
  const all = [...traced.values()];
  const byReader = new Map(all.map((each) => [each.reader, each]));
  let most = 0;
  for (const [reader, result] of drain([...byReader.keys()], processors, buffer)) {
    const one = byReader.get(reader)!;
    if (result instanceof TraceLost) {
      traced.delete(one.disk.disk);
      reader.files.close();
      owner.notify('lost', { disk: one.disk.disk, reason: result.message });
    } else {
      times?.set(one.disk.disk, result.time);
      most = Math.max(most, result.most / one.disk.capacity);
      endChanged(one);
      gauge(one);
    }
  }
  return most;
}

function endChanged({ disk, reader, devices }: Traced): void {
  for (const [key, { device, identity }] of devices) {
    const reason = changedIdentity(device, identity, disk.following === 'bios');
    if (reason === undefined) continue;
    reader.follower.remove(key);
    devices.delete(key);
    owner.notify('lost', { disk: disk.disk, key, reason });
  }
}

function serve(): void {
  const together = takes;
  takes = [];
  const times = new Map<string, number>();
  drainAll(times);
  for (const { args, resolve, reject } of together)
    try {
      resolve(take(args, times.get(args.disk)));
    } catch (thrown) {
      reject(thrown);
    }
  schedule(pause);
}

function take({ disk, key, settled }: Take['args'], time: number | undefined): TakenMap {
  const one = traced.get(disk);
  // The main thread has just received the reason.
  if (time === undefined || one?.devices.has(key) !== true)
    throw new AgentError('EPOCH_ENDED', 'its tracking has ended');
  const { generation, map } = one.reader.follower.take(key, time, settled);
  return { generation, map: map.buffer };
}

/** The main thread shows these numbers; nothing depends on them. */
function gauge({ reader, devices }: Traced): void {
  for (const [key, { gauges }] of devices) {
    const shown = new Int32Array(gauges);
    Atomics.store(shown, 0, reader.follower.dirtyMap(key)?.units ?? 0);
    Atomics.store(shown, 1, Math.ceil(reader.follower.memory(key) / 1024));
  }
}

/** Opens the files of a trace. If debugfs refuses, throws an error with the known reason and what would help. */
function openFiles({ folder, name }: TracedDisk): DebugfsRelayFiles {
  try {
    return new DebugfsRelayFiles(folder);
  } catch (thrown) {
    const code = errnoCode(thrown);
    if (code !== 'EPERM' && code !== 'EACCES') throw thrown;
    throw new AgentError('NOT_SUPPORTED', `the kernel does not let the trace of ${name} be read (${code})`, {
      hint: 'kernel lockdown (Secure Boot) closes debugfs; a kernel with BTF is tracked by eBPF instead',
      cause: thrown,
    });
  }
}
