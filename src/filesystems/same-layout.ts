/** Decides whether two readings of a superblock describe the same layout. */

/**
 * Returns the first field, except those in `volatile`, in which both differ, with both values; undefined if they agree.
 * A field that is added to a superblock counts as part of the layout until it is named volatile.
 */
export function layoutChange<Superblock extends object>(
  before: Superblock,
  now: Superblock,
  volatile: ReadonlySet<keyof Superblock>,
): string | undefined {
  const fields = new Set(Object.keys({ ...before, ...now }) as (keyof Superblock & string)[]);
  for (const field of fields) {
    if (volatile.has(field)) continue;
    const [was, is] = [JSON.stringify(before[field]), JSON.stringify(now[field])];
    if (was !== is) return `superblock: ${field} was ${was} and is ${is}`;
  }
  return undefined;
}
