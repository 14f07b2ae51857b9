/** How many digits of point IDs are shown. */

const shortest = 8;

/** Returns the number of digits that distinguish all the IDs. */
export function digitsNeeded(ids: readonly string[]): number {
  for (let digits = shortest; ; digits += 4)
    if (digits >= 32 || new Set(ids.map((id) => id.slice(0, digits))).size === new Set(ids).size)
      return digits;
}
