/** Timeouts for work that may never end. */

/** Milliseconds that one turn of the timer counts. */
const tick = 100;

/**
 * Calls back after `ms` milliseconds in which this process ran. Returns the function that cancels the call. If the
 * process was stopped, or its main thread was busy for long, its timers are late. The answer that the caller waits for
 * may have arrived by then, but was not processed yet; so that time does not count.
 */
export function afterOwnTime(ms: number, callback: () => void): () => void {
  let left = Math.max(1, Math.ceil(ms / tick));
  const timer = setInterval(
    () => {
      if (--left >= 0) return;
      clearInterval(timer);
      callback();
    },
    Math.min(ms, tick),
  );
  return () => clearInterval(timer);
}
