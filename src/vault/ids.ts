/** IDs of packs, points, writers and others: 32 random hexadecimal digits, so no ID is ever used twice. */
import { freshBytes } from '../base/random.ts';

/** Returns a new ID. `content` is the content of the object, if it is known; it is mixed into the ID. */
export function newId(...content: readonly Uint8Array[]): string {
  return freshBytes(16, ...content).toString('hex');
}

export function isId(text: string): boolean {
  return /^[0-9a-f]{32}$/.test(text);
}
