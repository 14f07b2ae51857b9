/**
 * The description in a control page: JSON behind a magic number and the layout's version (docs/formats/tracking.md).
 * Reads and writes only the page's memory.
 */
import { descriptionAt, descriptionMagic, layoutVersion, pageSize } from './layout.ts';

export interface Description {
  readonly layout: number;
}

const textAt = descriptionAt + 12;

/** Writes the description into the page. Throws RangeError if it does not fit. */
export function writeDescription(page: ArrayBuffer, description: Description): void {
  const view = Buffer.from(page);
  const text = Buffer.from(JSON.stringify(description));
  if (textAt + text.length > pageSize)
    throw new RangeError(`a description of ${text.length} bytes does not fit into ${pageSize - textAt}`);
  // Cleared first, for the case that another description is replaced: a half-written description must not count.
  view.writeUInt32LE(0, descriptionAt);
  view.writeUInt32LE(description.layout, descriptionAt + 4);
  view.writeUInt32LE(text.length, descriptionAt + 8);
  text.copy(view, textAt);
  // The magic number comes last: a page without it has no description.
  view.writeUInt32LE(descriptionMagic, descriptionAt);
}

/** Returns the description if it is of this layout's version; otherwise why there is none. */
export function readDescription(page: ArrayBuffer): Description | string {
  const view = Buffer.from(page);
  const magic = view.readUInt32LE(descriptionAt);
  if (magic !== descriptionMagic)
    return `a control page begins with 0x${magic.toString(16)}, not 0x${descriptionMagic.toString(16)}`;
  const version = view.readUInt32LE(descriptionAt + 4);
  if (version !== layoutVersion)
    return `the maps have layout ${version}, of another version of the agent, and this one has ${layoutVersion}`;
  const length = view.readUInt32LE(descriptionAt + 8);
  try {
    return JSON.parse(view.toString('utf8', textAt, textAt + length)) as Description;
  } catch {
    return `the description in a control page, ${length} bytes, is no JSON`;
  }
}
