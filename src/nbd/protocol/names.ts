/**
 * Names for the numbers of the protocol, generated from the tables in constants.ts, so that messages and logs show no bare
 * numbers. A number that is not in a table becomes `NBD_OPT_99 (unknown)`.
 */

/** Returns a function that names one value of `table`: `NBD_OPT_GO`. */
export function valueNamer(
  prefix: string,
  table: Readonly<Record<string, number>>,
): (value: number) => string {
  const names = new Map(Object.entries(table).map(([key, value]) => [value, prefix + key]));
  return (value) => names.get(value) ?? `${prefix}${value > 0xffff ? hex(value) : value} (unknown)`;
}

/** Returns a function that names every set bit: `NBD_FLAG_HAS_FLAGS|NBD_FLAG_SEND_FLUSH`, or `0`. */
export function flagsNamer(
  prefix: string,
  table: Readonly<Record<string, number>>,
): (flags: number) => string {
  const entries = Object.entries(table);
  return (flags) => {
    const names: string[] = [];
    let rest = flags;
    for (const [key, bit] of entries) {
      if ((flags & bit) === 0) continue;
      names.push(prefix + key);
      rest &= ~bit;
    }
    if (rest !== 0) names.push(hex(rest));
    return names.length === 0 ? '0' : names.join('|');
  };
}

export function hex(value: number): string {
  return `0x${(value >>> 0).toString(16)}`;
}
