/** Returns a name as a key for maps and sets: one character per byte, which V8 stores in one byte. */
export function nameText(name: Uint8Array): string {
  return Buffer.from(name.buffer, name.byteOffset, name.byteLength).toString('latin1');
}
