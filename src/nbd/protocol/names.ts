/**
 * Names for the numbers of the protocol, generated from the tables in constants.ts, so that no message and no
 * log line shows a bare number. A number the tables do not know is shown as such: `NBD_OPT_ 99 (unknown)`.
 */

/** Makes a function that names one value of `table`: `NBD_OPT_GO`. */
export function valueNamer(
  prefix: string,
  table: Readonly<Record<string, number>>,
): (value: number) => string {
  const names = new Map(Object.entries(table).map(([key, value]) => [value, prefix + key]));
  return (value) => names.get(value) ?? `${prefix}${value > 0xffff ? hex(value) : value} (unknown)`;
}

/** Makes a function that names every bit set: `NBD_FLAG_HAS_FLAGS|NBD_FLAG_SEND_FLUSH`, or `0`. */
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
