/** Pieces of the documents that a vault stores. Unknown fields are ignored, because later versions may add some. */
import * as Type from 'typebox';
import { wholeNumber } from '../schema.ts';

/** The type of a stored document, which is read and never changed. */
export type Stored<T extends Type.TSchema> = ReadonlyDeep<Type.Static<T>>;

type ReadonlyDeep<T> = T extends object ? { readonly [Key in keyof T]: ReadonlyDeep<T[Key]> } : T;

/** Lower-case hexadecimal digits. */
export function digits(length: number, description: string): Type.TString {
  return Type.String({
    pattern: `^[0-9a-f]{${length}}$`,
    title: `${length} hexadecimal digits`,
    description,
  });
}

/** The ID of a pack, point, writer or other object. */
export function id(description: string): Type.TString {
  return digits(32, description);
}

/** A time in the form of `Date.toISOString`. */
export function timestamp(description: string): Type.TRefineAdd<Type.TString> {
  const form = Type.String({
    pattern: '^[+-]?[0-9]{4,6}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z$',
    title: 'a time',
    description,
  });
  return Type.Refine(form, (value) => !Number.isNaN(Date.parse(value)));
}

/** The number of a format: the first field that is checked, since a document of a later version may differ in others. */
const number = wholeNumber(1, Number.MAX_SAFE_INTEGER, 'number of the format');
export const formatted = Type.Object({ format: number });
export const versioned = Type.Object({ version: number });
