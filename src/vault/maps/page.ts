/**
 * Map pages: a level and the names of the entries below (docs/formats/vault.md, "Maps"). Pure. Equal content gives
 * equal bytes: all-zero names at the end are left out, and a page without entries does not exist.
 */
import { AgentError } from '../../base/errors.ts';
import { type Name, isZeroName, nameLength } from '../names.ts';

/** Maximum number of entries of a page. Tests use fewer, to get many levels from few chunks. */
export const pageEntries = 1024;

const headLength = 8;

/** Returns the page; undefined if all names are all-zero. `names` has at most `pageEntries` times 32 bytes. */
export function encodePage(level: number, names: Buffer): Buffer | undefined {
  const used = trimmed(names);
  if (used.length === 0) return undefined;
  const page = Buffer.alloc(headLength + used.length);
  page.writeUInt8(level, 0);
  page.writeUInt32LE(used.length / nameLength, 4);
  used.copy(page, headLength);
  return page;
}

/** Returns the names of a page of this level, as a view of it. `name` is for messages. Throws VAULT_DAMAGED. */
export function parsePage(page: Buffer, level: number, name: Name, entries = pageEntries): Buffer {
  if (page.length < headLength + nameLength)
    throw damagedPage(name, `has ${page.length} bytes; the minimum is ${headLength + nameLength}`);
  if (page.readUInt32LE(0) !== level)
    throw damagedPage(name, `has level ${page.readUInt32LE(0)} instead of ${level}`);
  const count = page.readUInt32LE(4);
  if (count > entries) throw damagedPage(name, `has ${count} entries; at most ${entries} are allowed`);
  if (page.length !== headLength + count * nameLength)
    throw damagedPage(name, `has ${page.length} bytes for ${count} entries`);
  const names = page.subarray(headLength);
  if (trimmed(names).length !== names.length) throw damagedPage(name, 'ends with an entry of zeros');
  return names;
}

/** Removes all-zero names at the end. */
function trimmed(names: Buffer): Buffer {
  let end = names.length;
  while (end > 0 && isZeroName(names.subarray(end - nameLength, end))) end -= nameLength;
  return names.subarray(0, end);
}

function damagedPage(name: Name, what: string): AgentError {
  return new AgentError('VAULT_DAMAGED', `map page ${name.toString('hex')} ${what}`, {
    hint:
      'another program or version wrote this page; run dattocli vault check to list the affected ' + 'points',
  });
}
