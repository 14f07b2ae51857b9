/** Waiting for work that may never end. */

/** Milliseconds of patience that one turn of the timer uses up. */
const tick = 100;

/**
 * Calls back after `ms` milliseconds in which this process ran; returns what cancels it. If the process was stopped, or
 * if its main thread had other work for long, its timers are late, and the answer that the caller waits for may be there
 * already and only has to be heard.
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
