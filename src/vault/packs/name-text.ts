/** A name as a key of maps and sets: one character a byte, which V8 keeps in one byte each. */
export function nameText(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('latin1');
}
