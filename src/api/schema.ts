/**
 * The pieces that the schemas of `src/api` are made of. A schema is the one source of a document: its TypeScript type,
 * the check of requests and files, the tables in docs/ and docs/openapi.json all come from it.
 *
 * TypeBox is imported as a namespace everywhere, so that the bundler keeps only the types in use (docs/dependencies.md).
 */
import * as Type from 'typebox';

/** An object that refuses unknown fields, as requests and configuration files do. */
export function closed<P extends Type.TProperties>(
  properties: P,
  options: Type.TObjectOptions = {},
): Type.TObject<P> {
  return Type.Object(properties, { ...options, additionalProperties: false });
}

/**
 * An object whose names are free. Not `Type.Record`, which brings TypeBox's engine for types into the bundle: 91 KB, and
 * 10 ms at each start of a vault command.
 */
export function mapOf<T extends Type.TSchema>(
  values: T,
  options: Type.TSchemaOptions & { propertyNames?: object },
): Type.TUnsafe<Record<string, Type.Static<T>>> {
  return Type.Unsafe<Record<string, Type.Static<T>>>({
    ...{ type: 'object', additionalProperties: values },
    ...options,
  });
}

export function nullable<T extends Type.TSchema>(
  schema: T,
  options: Type.TSchemaOptions = {},
): Type.TUnion<[T, Type.TNull]> {
  return Type.Union([schema, Type.Null()], options);
}

export function wholeNumber(minimum: number, maximum: number, description: string): Type.TInteger {
  return Type.Integer({ minimum, maximum, description });
}

/** Bytes, or another count. */
export function count(description: string): Type.TInteger {
  return wholeNumber(0, Number.MAX_SAFE_INTEGER, description);
}

export function choice<const Values extends readonly string[]>(
  values: Values,
  description: string,
): Type.TEnum<[...Values]> {
  return Type.Enum(values as never, { description });
}

/** A code of docs/errors.md. */
export function code<C extends string>(codes: readonly C[]): Type.TEnum<C[]> {
  return Type.Enum(codes as never, { title: 'a code of errors.md', description: 'stable, for scripts' });
}

export function flag(description: string): Type.TBoolean {
  return Type.Boolean({ description });
}

export function text(description: string): Type.TString {
  return Type.String({ description });
}

/** A text as requests give it: neither empty nor of any length. */
export function shortText(description: string): Type.TString {
  return Type.String({ minLength: 1, maxLength: 4096, description });
}

/** `title` names the values of a pattern in messages and tables. */
export function absolutePath(description: string): Type.TString {
  return Type.String({ pattern: '^/', title: 'an absolute path', description });
}

/** ISO 8601 in UTC, as `Date.toISOString` writes it. */
export function time(description: string): Type.TString {
  return Type.String({ format: 'date-time', description });
}

/** A document of an answer. It has a name, so that docs/openapi.json describes it once. Fields are only ever added. */
export type Named<P extends Type.TProperties = Type.TProperties> = Type.TObject<P> & { $id: string };

export function named<P extends Type.TProperties>($id: string, properties: P): Named<P> {
  return Object.assign(Type.Object(properties), { $id });
}

/** A reference to a document by its name. */
export function ref<P extends Type.TProperties>({
  $id,
}: Named<P>): Type.TUnsafe<Type.Static<Type.TObject<P>>> {
  return Type.Unsafe<Type.Static<Type.TObject<P>>>({ $ref: `${$id}#` });
}
