/**
 * Removes what a test made when the test ends, whether it failed or not, in the reverse order of making. For
 * example, a mount is removed before the loop device below it. node:test itself runs `after` hooks in the
 * order of registration, and none at all if a signal ends the run; here they also run then.
 */
type Removal = () => void | Promise<void>;

const stacks = new Map<object, Removal[]>();
let watching = false;

/** An object with node:test's `after`: a test context, or `{ after }` imported from node:test. */
export interface EndingTest {
  after(hook: () => Promise<void>): void;
}

/**
 * Runs `removal` at the end of the test, before all removals that were registered earlier. All removals run,
 * even if one fails.
 */
export function atEnd(t: EndingTest, removal: Removal): void {
  watchSignals();
  let stack = stacks.get(t);
  if (stack === undefined) {
    const removals: Removal[] = [];
    stack = removals;
    stacks.set(t, removals);
    t.after(async () => {
      const failures = await removeAll(removals);
      stacks.delete(t);
      if (failures.length > 0) throw new AggregateError(failures, failures.map(String).join('\n'));
    });
  }
  stack.push(removal);
}

/** Runs the last removal first. Returns the failures. */
async function removeAll(removals: Removal[]): Promise<unknown[]> {
  const failures: unknown[] = [];
  for (let next = removals.pop(); next !== undefined; next = removals.pop())
    try {
      await next();
    } catch (thrown) {
      failures.push(thrown);
    }
  return failures;
}

function watchSignals(): void {
  if (watching) return;
  watching = true;
  for (const [signal, status] of [
    ['SIGINT', 130],
    ['SIGTERM', 143],
    ['SIGHUP', 129],
  ] as const)
    process.once(signal, () => {
      void (async () => {
        for (const removals of [...stacks.values()].reverse()) await removeAll(removals);
        process.exit(status);
      })();
    });
}
