/** Ids of packs, points, writers and the like: 32 hexadecimal digits, random, so none is ever used twice. */
import { randomBytes } from 'node:crypto';

export function newId(): string {
  return randomBytes(16).toString('hex');
}

export function isId(text: string): boolean {
  return /^[0-9a-f]{32}$/.test(text);
}
