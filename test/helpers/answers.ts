/** Checks answers of the API and `--json` documents of the command against their schemas. */
import assert from 'node:assert/strict';
import { Check, Errors } from 'typebox/schema';

interface Schema {
  readonly $ref?: string;
  readonly properties?: object;
}

type Schemas = Readonly<Record<string, Schema>>;

export interface OpenApi {
  readonly components: { readonly schemas: Schemas };
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly responses: Readonly<Record<string, Answer>> }>>>
  >;
}

interface Answer {
  readonly content?: Readonly<Record<string, { readonly schema: Schema }>>;
}

/** Fails if the value lacks a field of the schema, has one more, or one of another kind. */
export function assertFits(schemas: Schemas, schema: object, value: unknown, what: string): void {
  const exact = exactly(schemas, schema);
  if (Check(exact, value)) return;
  assert.fail(`${what} does not fit its schema: ${JSON.stringify(Errors(exact, value)[1])}`);
}

/** Returns the schema without references and open objects. */
function exactly(schemas: Schemas, schema: Schema): Schema {
  const name = schema.$ref?.split('/').at(-1);
  if (name !== undefined) return exactly(schemas, schemas[name]!);
  const entries = Object.entries(schema).map(([key, value]: [string, unknown]): [string, unknown] => [
    key,
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? exactly(schemas, value)
      : Array.isArray(value)
        ? value.map((each: unknown) => (typeof each === 'object' ? exactly(schemas, each as Schema) : each))
        : value,
  ]);
  const copy = Object.fromEntries(entries) as Schema;
  return typeof copy.properties === 'object' && 'type' in copy
    ? { ...copy, ...{ additionalProperties: false } }
    : copy;
}
