/**
 * Map pages: a level and the names of what is below (docs/formats/vault.md, "Maps"). Pure. Equal contents give equal
 * bytes: entries at the end that are all-zero names are left out, and a page without entries does not exist.
 */
import { AgentError } from '../../base/errors.ts';
import { type Name, isZeroName, nameLength } from '../names.ts';

/** Entries of a page at most. Tests use less, to have many levels of few chunks. */
export const pageEntries = 1024;

const headLength = 8;

/** The page, or undefined where all names are the all-zero name. `names` are at most `pageEntries` times 32 bytes. */
export function encodePage(level: number, names: Buffer): Buffer | undefined {
  const used = trimmed(names);
  if (used.length === 0) return undefined;
  const page = Buffer.alloc(headLength + used.length);
  page.writeUInt8(level, 0);
  page.writeUInt32LE(used.length / nameLength, 4);
  used.copy(page, headLength);
  return page;
}

/** The names of a page of this level, a view of it. `name` is for messages. Throws VAULT_DAMAGED. */
export function parsePage(page: Buffer, level: number, name: Name, entries = pageEntries): Buffer {
  if (page.length < headLength + nameLength)
    throw damagedPage(name, `has ${page.length} bytes; the least is ${headLength + nameLength}`);
  if (page.readUInt32LE(0) !== level)
    throw damagedPage(name, `says level ${page.readUInt32LE(0)} where ${level} is expected`);
  const count = page.readUInt32LE(4);
  if (count > entries) throw damagedPage(name, `says ${count} entries; ${entries} are the most`);
  if (page.length !== headLength + count * nameLength)
    throw damagedPage(name, `has ${page.length} bytes for ${count} entries`);
  const names = page.subarray(headLength);
  if (trimmed(names).length !== names.length) throw damagedPage(name, 'ends with an entry of zeros');
  return names;
}

/** Without all-zero names at the end. */
function trimmed(names: Buffer): Buffer {
  let end = names.length;
  while (end > 0 && isZeroName(names.subarray(end - nameLength, end))) end -= nameLength;
  return names.subarray(0, end);
}

function damagedPage(name: Name, what: string): AgentError {
  return new AgentError('VAULT_DAMAGED', `map page ${name.toString('hex')} ${what}`, {
    hint: 'whoever wrote this page was no agent of this version; vault check names what it concerns',
  });
}
