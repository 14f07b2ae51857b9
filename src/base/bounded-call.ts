/**
 * System calls that may never return. A call on a path of a hung filesystem (an NFS server that is down, a FUSE
 * program that is stopped) or of a dead disk blocks its thread for as long as the hang lasts, and nothing can call it
 * back. All threads of a Node process share one small pool, so a few such calls would stop everything else. This
 * module limits them: in time for the caller, in number for the pool, and to one at a time for each path.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { AgentError } from './errors.ts';
import { filePath } from './file-name.ts';
import { afterOwnTime } from './patience.ts';

export interface CallLimits {
  /** Milliseconds that the caller waits. Default 5000. */
  readonly limitMs?: number;
}

/** Calls that run at once. UV_THREADPOOL_SIZE of the launchers (64) is well above it. */
export const mostCalls = 24;
const defaultLimitMs = 5000;

interface Running {
  /** Settles when the call has returned. */
  readonly ended: Promise<void>;
  /** A caller has given it up. */
  overdue: boolean;
}

/** By the call and its path. */
const running = new Map<string, Running>();
/** The callers that wait until fewer than `mostCalls` run. */
const waiting: (() => void)[] = [];
let free = mostCalls;

/**
 * Runs `call`, which asks the kernel `what` (a verb, such as `stat`) about `path`, and resolves with its result.
 * Throws NO_ANSWER if the call does not return in time; the call itself stays with its thread until it does, and until
 * then the same question about the same path throws NO_ANSWER at once. Rethrows what `call` throws.
 */
export async function boundedCall<T>(
  what: string,
  path: string,
  call: () => Promise<T>,
  { limitMs = defaultLimitMs }: CallLimits = {},
): Promise<T> {
  const key = `${what} ${path}`;
  const deadline = performance.now() + limitMs;
  const late = (): AgentError => noAnswer(what, path, limitMs);
  for (let earlier = running.get(key); earlier !== undefined; earlier = running.get(key)) {
    if (earlier.overdue) throw late();
    await before(deadline, earlier.ended, late);
  }
  const { entry, done } = begin(key);
  const started = slot(deadline, late).then(async (release) => {
    try {
      return await call();
    } finally {
      release();
    }
  });
  started.then(done, done);
  return before(deadline, started, () => {
    entry.overdue = true;
    return late();
  });
}

/** Opens the path as fs.open does. Throws NO_ANSWER, and what opening throws; a file opened too late is closed again. */
export async function boundedOpen(path: string, flags: number): Promise<FileHandle> {
  let abandoned = false;
  try {
    return await boundedCall('open', path, async () => {
      const handle = await open(filePath(path), flags);
      if (abandoned) await handle.close();
      return handle;
    });
  } catch (thrown) {
    abandoned = true;
    throw thrown;
  }
}

/** True if `thrown` says that a path did not answer in time. */
export function isNoAnswer(thrown: unknown): boolean {
  return thrown instanceof AgentError && thrown.code === 'NO_ANSWER';
}

/** True while a call that was given up, or one that may yet be, has not returned: an ordinary exit would wait for it. */
export function callsAreRunning(): boolean {
  return running.size > 0;
}

/** The error for a path that did not answer within `limitMs` milliseconds. */
export function noAnswer(what: string, path: string, limitMs: number): AgentError {
  return new AgentError('NO_ANSWER', `${path} does not answer: ${what} took longer than ${limitMs} ms`, {
    hint: 'check the filesystem that holds it: a network server that is down, a stopped FUSE program, or a dead disk',
  });
}

function begin(key: string): { readonly entry: Running; readonly done: () => void } {
  let settle: () => void = () => undefined;
  const ended = new Promise<void>((resolve) => {
    settle = resolve;
  });
  const entry = { ended, overdue: false };
  running.set(key, entry);
  const done = (): void => {
    running.delete(key);
    settle();
  };
  return { entry, done };
}

/** Waits until one of the `mostCalls` places is free, and returns what frees it again. */
async function slot(deadline: number, late: () => AgentError): Promise<() => void> {
  if (free > 0) free--;
  else {
    let take: () => void = () => undefined;
    const turn = new Promise<void>((resolve) => {
      take = resolve;
      waiting.push(take);
    });
    try {
      await before(deadline, turn, late);
    } catch (thrown) {
      const place = waiting.indexOf(take);
      if (place >= 0) waiting.splice(place, 1);
      // The turn came in the same moment: it is passed on.
      else pass();
      throw thrown;
    }
  }
  return pass;
}

function pass(): void {
  const next = waiting.shift();
  if (next === undefined) free++;
  else next();
}

/**
 * Settles as `work` does, or rejects with `late()` when the deadline (on performance.now()'s clock) has passed; later, if
 * this process did not run in the meantime.
 */
async function before<T>(deadline: number, work: Promise<T>, late: () => AgentError): Promise<T> {
  let cancel: () => void = () => undefined;
  const timeout = new Promise<never>((_, reject) => {
    cancel = afterOwnTime(Math.max(0, deadline - performance.now()), () => reject(late()));
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    cancel();
  }
}
