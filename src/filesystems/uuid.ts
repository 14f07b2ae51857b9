/** Formats UUIDs and labels of on-disk headers as blkid prints them. */

/** Formats 16 bytes in the order of RFC 9562; undefined if all are zero, as in blkid. */
export function uuidText(bytes: Uint8Array): string | undefined {
  if (bytes.every((byte) => byte === 0)) return undefined;
  const hex = Buffer.from(bytes).toString('hex');
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join('-');
}

/** Formats 16 bytes whose first three fields are little-endian (GPT). */
export function guidText(bytes: Uint8Array): string | undefined {
  const b = Buffer.from(bytes);
  b.subarray(0, 4).reverse();
  b.subarray(4, 6).reverse();
  b.subarray(6, 8).reverse();
  return uuidText(b);
}

/** Returns the text up to the first zero byte, without white space at its end; undefined if it is empty. */
export function labelText(bytes: Uint8Array): string | undefined {
  const end = bytes.indexOf(0);
  const text = Buffer.from(end < 0 ? bytes : bytes.subarray(0, end)).toString('utf8');
  const label = text.replace(/[ \t\n\v\f\r]+$/, '');
  return label === '' ? undefined : label;
}
