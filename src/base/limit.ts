/** Limits how many pieces of asynchronous work run at once, over all callers: each may hold a file descriptor. */
export type Limited = <R>(work: () => Promise<R>) => Promise<R>;

/** Returns a function that runs the given work. At most `most` pieces of work run at once; the others wait in order. */
export function limit(most: number): Limited {
  let free = most;
  const waiting: (() => void)[] = [];
  return async (work) => {
    if (free > 0) free--;
    else await new Promise<void>((resolve) => waiting.push(resolve));
    try {
      return await work();
    } finally {
      const next = waiting.shift();
      if (next === undefined) free++;
      else next();
    }
  };
}
