/**
 * System calls that may never return. A filesystem hangs if its NFS server is down or its FUSE program is stopped; a
 * dead disk hangs too. A call on such a path blocks its thread until the hang ends, and it cannot be cancelled. All
 * threads of a Node process share one small pool, so a few such calls would stop everything else. This module limits
 * how long the caller waits, how many calls run at once, and allows one call at a time for each path.
 */
import { type FileHandle, open } from 'node:fs/promises';
import { AgentError } from './errors.ts';
import { filePath } from './file-name.ts';
import { afterOwnTime } from './patience.ts';

export interface CallLimits {
  /** Milliseconds that the caller waits. Default 5000. */
  readonly limitMs?: number;
}

/** Most calls that run at once. The launchers set UV_THREADPOOL_SIZE to 64, well above this. */
export const mostCalls = 24;
const defaultLimitMs = 5000;

interface Running {
  /** Settles when the call has returned. */
  readonly ended: Promise<void>;
  /** A caller has stopped waiting for this call. */
  overdue: boolean;
}

/** The calls that have not returned, by call and path. */
const running = new Map<string, Running>();
/** The callers that wait because `mostCalls` calls run. */
const waiting: (() => void)[] = [];
let free = mostCalls;

/**
 * Runs `call` and resolves with its result. `what` is the operation, a verb such as `stat`; `path` is its path.
 * Throws NO_ANSWER if the call does not return in time. The call then keeps its thread until it returns. Until then,
 * the same operation on the same path throws NO_ANSWER at once. Rethrows errors of `call`.
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

/** Opens the path as fs.open does. Throws NO_ANSWER and the errors of fs.open. A file that opens too late is closed. */
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

/** True if `thrown` is NO_ANSWER: a path did not answer in time. */
export function isNoAnswer(thrown: unknown): boolean {
  return thrown instanceof AgentError && thrown.code === 'NO_ANSWER';
}

/** True while any call has not returned, even if its caller gave up. An ordinary exit would wait for it. */
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

/** Waits until one of the `mostCalls` places is free. Returns the function that frees the place again. */
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
      // The place became free at the same moment: the next caller gets it.
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
 * Settles as `work` does, or rejects with `late()` after the deadline (on performance.now()'s clock). If this process
 * did not run in the meantime, the rejection comes later.
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
