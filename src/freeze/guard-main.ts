/**
 * The guard process, started before a freeze. It freezes and thaws on command. It thaws by itself at the deadline, at
 * SIGTERM, and when its standard input ends, because then the agent has died. It locks its memory and opens everything
 * before the freeze, so it never needs to read from a filesystem that it froze.
 */
import type { FileHandle } from 'node:fs/promises';
import { constants as osConstants, setPriority } from 'node:os';
import { AgentError, toAgentError } from '../base/errors.ts';
import { freezeFilesystem, thawFilesystem } from '../linux/ioctl.ts';
import { bootId, identifyProcess, lockMemory, machineMilliseconds } from '../linux/process.ts';
import { isInMemory, syncFilesystem } from '../linux/syncfs.ts';
import { restoreGracePeriods } from './grace-periods.ts';
import { FreezeGuard, type GuardKernel } from './guard.ts';
import { type Answer, type Command, encodeLine, lineSplitter } from './guard-messages.ts';
import { openMount } from './open-mount.ts';
import { type FreezeRecord, recordPath, removeRecord, writeRecord } from './freeze-record.ts';

let guard: FreezeGuard | undefined;
let runDirectory: string | undefined;
/** The agent sent `leave`: it is alive, and restores the settings that it changed. */
let mayLeave = false;

function tell(answer: Answer): void {
  process.stdout.write(encodeLine(answer));
}

async function obey(command: Command): Promise<void> {
  switch (command.do) {
    case 'prepare':
      ({ runDirectory } = command);
      guard = await prepare(command);
      tell({ is: 'ready' });
      return;
    case 'freeze':
      tell({ is: 'frozen', beganAt: await prepared().freeze() });
      return;
    case 'thaw':
      tell({ is: 'thawed', report: await prepared().thaw() });
      return;
    case 'leave':
      mayLeave = true;
  }
}

function prepared(): FreezeGuard {
  if (guard === undefined) throw new AgentError('INTERNAL', 'the guard is not prepared');
  return guard;
}

async function prepare(command: Extract<Command, { do: 'prepare' }>): Promise<FreezeGuard> {
  // The kernel's functions below keep the handles: a handle that is collected would close its descriptor.
  const handles: FileHandle[] = [];
  for (const path of command.mounts) handles.push(await openMount(path));
  const devices = await Promise.all(handles.map(async (handle) => (await handle.stat()).dev));
  const mounts = command.mounts.map((path, index) => ({ path, dev: devices[index]! }));
  const self = await identifyProcess(process.pid);
  if (self === undefined) throw new AgentError('INTERNAL', 'the guard cannot find itself in /proc');
  const boot = await bootId();
  const record = recordPath(command.runDirectory, process.pid);
  // If the record is on a disk, it is written only once, before anything is frozen, and names all mounts.
  const cheap = await isInMemory(command.runDirectory);
  let written = false;
  hardenSelf();

  const kernel: GuardKernel = {
    sync: (mount) => syncFilesystem(handles[mount]!.fd),
    freeze: (mount) => freezeFilesystem(handles[mount]!.fd),
    thaw: (mount) => thawFilesystem(handles[mount]!.fd),
    now: () => performance.now() + origin,
    after: (ms, callback) => {
      const timer = setTimeout(callback, ms);
      return () => clearTimeout(timer);
    },
    record: (indices, deadline) => {
      if (written && !cheap) return;
      const held = cheap ? indices.map((index) => mounts[index]!) : mounts;
      const document: FreezeRecord = { version: 1, bootId: boot, guard: self, deadline, mounts: held };
      writeRecord(record, document);
      written = true;
    },
    forget: () => removeRecord(record),
    begin: () => tell({ is: 'freezing' }),
  };
  // The first call loads code and starts threads. This must happen now, not while something is frozen.
  await Promise.allSettled(Array.from({ length: command.mounts.length + 4 }, () => thawFilesystem(-1)));
  return new FreezeGuard(kernel, command.mounts, command.maxFreezeMs, (why, report) =>
    tell({ is: 'expired', why, report }),
  );
}

/** The milliseconds to add to `performance.now()` to get CLOCK_MONOTONIC. */
const origin = machineMilliseconds() - performance.now();

/** Protects the process against lack of memory and CPU time. A measure may be forbidden, for example in a container. */
function hardenSelf(): void {
  const measures = [lockMemory, () => setPriority(osConstants.priority.PRIORITY_HIGHEST)];
  for (const measure of measures)
    try {
      measure();
    } catch {
      // Continue without this measure.
    }
}

let leaving = false;

async function leave(code: number): Promise<void> {
  if (leaving) return;
  leaving = true;
  await guard?.expire('signal');
  if (runDirectory !== undefined && !mayLeave) restoreGracePeriods(runDirectory);
  process.exit(code);
}

process.stdout.on('error', () => undefined);
process.on('SIGTERM', () => void leave(0));
// A terminal may send these signals to both processes. The agent decides what to do.
process.on('SIGINT', () => undefined);
process.on('SIGHUP', () => undefined);
process.on('uncaughtException', () => void leave(70));
process.on('unhandledRejection', () => void leave(70));

process.stdin.setEncoding('utf8');
process.stdin.on(
  'data',
  lineSplitter((line) => {
    obey(JSON.parse(line) as Command).catch((thrown: unknown) =>
      tell({ is: 'failed', error: toAgentError(thrown).toDocument() }),
    );
  }),
);
process.stdin.on('end', () => void leave(0));
process.stdin.on('error', () => void leave(0));
process.stdin.on('close', () => void leave(0));
