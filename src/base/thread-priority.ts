/**
 * Gives threads a high priority while a filesystem is frozen, because all programs that write to it wait. On Linux each
 * thread has its own nice value. A new thread inherits the value of the thread that starts it.
 */
import os from 'node:os';

/** Higher priority than every process whose priority an administrator did not raise. */
const raisedNice = -15;

/**
 * Raises the priority of the calling thread until the returned function is called. Does nothing without the permission.
 */
export function raisePriority(): () => void {
  try {
    const before = os.getPriority(0);
    os.setPriority(0, raisedNice);
    return () => {
      try {
        os.setPriority(0, before);
      } catch {
        // The priority stays raised, which does no harm.
      }
    };
  } catch {
    return () => undefined;
  }
}

/**
 * Runs `work` at this nice value if that is a lower priority than now. Without the permission to raise the priority,
 * nothing is changed, because the thread could not get its priority back afterwards.
 */
export async function withLoweredPriority<Result>(
  nice: number,
  work: () => Promise<Result>,
): Promise<Result> {
  const before = os.getPriority(0);
  const may = nice > before && mayRaisePriority();
  if (may) os.setPriority(0, nice);
  try {
    return await work();
  } finally {
    if (may) os.setPriority(0, before);
  }
}

function mayRaisePriority(): boolean {
  try {
    os.setPriority(0, raisedNice);
    return true;
  } catch {
    return false;
  }
}

/** Runs `work` with the priority of the thread raised. */
export async function withRaisedPriority<Result>(work: () => Promise<Result>): Promise<Result> {
  const done = raisePriority();
  try {
    return await work();
  } finally {
    done();
  }
}
