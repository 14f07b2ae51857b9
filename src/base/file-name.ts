/**
 * Converts names of files, which are bytes. They need not be UTF-8: a mount point may have a Latin-1 name. A byte that
 * is not part of valid UTF-8 becomes a lone surrogate in the text, U+DC80 to U+DCFF (see PEP 383 of Python). No valid
 * text contains lone surrogates, and JSON keeps them.
 */
import { isUtf8 } from 'node:buffer';

/** Returns the text of a name; `filePath` is the inverse. */
export function decodeName(bytes: Uint8Array): string {
  if (isUtf8(bytes)) return Buffer.from(bytes).toString('utf8');
  let text = '';
  for (let at = 0; at < bytes.length;) {
    const length = [1, 2, 3, 4].find((each) => isCharacter(bytes.subarray(at, at + each), each)) ?? 0;
    text +=
      length === 0
        ? String.fromCharCode(0xdc00 + bytes[at]!)
        : Buffer.from(bytes.subarray(at, at + length)).toString('utf8');
    at += Math.max(length, 1);
  }
  return text;
}

function isCharacter(bytes: Uint8Array, length: number): boolean {
  return bytes.length === length && isUtf8(bytes);
}

/** Returns the path to pass to Node's functions for a name from `decodeName`: the text itself, or its bytes. */
export function filePath(name: string): string | Buffer {
  if (name.isWellFormed()) return name;
  const parts = name.match(/[\udc80-\udcff]|[^\udc80-\udcff]+/gu) ?? [];
  return Buffer.concat(
    parts.map((part) => {
      const code = part.charCodeAt(0);
      return part.length === 1 && code >= 0xdc80 && code <= 0xdcff
        ? Buffer.of(code - 0xdc00)
        : Buffer.from(part);
    }),
  );
}

/** Returns the name as it looks if its bytes are read as UTF-8: on a command line, on a terminal. */
export function shownName(name: string): string {
  const path = filePath(name);
  return typeof path === 'string' ? path : path.toString('utf8');
}
