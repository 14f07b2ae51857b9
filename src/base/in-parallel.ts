/** Work on many items, of which some run at the same time. */

/**
 * Runs `work` for every item, at most `most` at once. Takes an item only when its work can begin. After a failure, starts no
 * further work, waits for the work in progress, and rejects with the first failure. So nothing continues behind the caller.
 */
export async function inParallel<Item>(
  items: Iterable<Item>,
  most: number,
  work: (item: Item) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]();
  let failure: { readonly error: unknown } | undefined;
  const run = async (): Promise<void> => {
    try {
      for (let next = iterator.next(); next.done !== true; next = iterator.next()) {
        await work(next.value);
        if (failure !== undefined) return;
      }
    } catch (error) {
      failure ??= { error };
    }
  };
  await Promise.all(Array.from({ length: most }, run));
  if (failure === undefined) return;
  // As a loop does that is left early: a generator may hold something open.
  iterator.return?.();
  throw failure.error;
}
