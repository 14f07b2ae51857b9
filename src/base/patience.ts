/** Waiting for work that may never end. */

/** Milliseconds of patience that one look at the clock uses up. */
const tick = 100;

/**
 * What the work resolves to; undefined if it fails or has not ended after `ms` milliseconds.
 *
 * Only time counts in which this process runs: if it was stopped, or if its main thread had other work for longer, its
 * timers are late, and the answer may be there already and only has to be heard.
 */
export async function within<T>(ms: number, work: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<undefined>((resolve) => {
    let left = Math.ceil(ms / tick);
    timer = setInterval(
      () => {
        left--;
        if (left < 0) resolve(undefined);
      },
      Math.min(ms, tick),
    );
  });
  try {
    return await Promise.race([work.catch(() => undefined), late]);
  } finally {
    clearInterval(timer);
  }
}
