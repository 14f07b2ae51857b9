/**
 * While a filesystem is frozen all who write to it wait, so the threads that work then go before others. On Linux the
 * nice value is a thread's own; threads that are started later get it from the one that starts them.
 */
import os from 'node:os';

/** Enough to go before whatever has not been preferred by hand. */
const urgentNice = -15;

/** Makes the calling thread urgent until the returned function is called. Without the right to do so, nothing. */
export function becomeUrgent(): () => void {
  try {
    const before = os.getPriority(0);
    os.setPriority(0, urgentNice);
    return () => {
      try {
        os.setPriority(0, before);
      } catch {
        // It stays urgent, which harms nobody.
      }
    };
  } catch {
    return () => undefined;
  }
}

/**
 * Runs `work` at this nice value, if that is nicer than now. Without the right to become urgent afterwards, nothing
 * changes: a thread that is nice could not come back.
 */
export async function nicely<Result>(nice: number, work: () => Promise<Result>): Promise<Result> {
  const before = os.getPriority(0);
  const may = nice > before && mayBeUrgent();
  if (may) os.setPriority(0, nice);
  try {
    return await work();
  } finally {
    if (may) os.setPriority(0, before);
  }
}

function mayBeUrgent(): boolean {
  try {
    os.setPriority(0, urgentNice);
    return true;
  } catch {
    return false;
  }
}

/** Runs `work` urgently. */
export async function urgently<Result>(work: () => Promise<Result>): Promise<Result> {
  const done = becomeUrgent();
  try {
    return await work();
  } finally {
    done();
  }
}
