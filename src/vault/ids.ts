/** Ids of packs, points, writers and the like: 32 hexadecimal digits, random, so none is ever used twice. */
import { freshBytes } from '../base/random.ts';

/** `content`: what the object of this id is going to hold, if that is known; it makes the id another one. */
export function newId(...content: readonly Uint8Array[]): string {
  return freshBytes(16, ...content).toString('hex');
}

export function isId(text: string): boolean {
  return /^[0-9a-f]{32}$/.test(text);
}
