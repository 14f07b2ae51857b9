/** Runs asynchronous work a few pieces at a time, whichever caller begins it: each may hold a descriptor, and those are limited. */
export type Limited = <R>(work: () => Promise<R>) => Promise<R>;

/** Returns a function that runs what it is given, with at most `most` pieces of work under way; the rest waits in order. */
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
