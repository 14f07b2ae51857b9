/** Checks answers of the API against the OpenAPI document that the daemon serves. */
import assert from 'node:assert/strict';
import { Check, Errors } from 'typebox/schema';

interface Schema {
  readonly $ref?: string;
  readonly properties?: object;
}

export interface OpenApi {
  readonly components: { readonly schemas: Readonly<Record<string, Schema>> };
  readonly paths: Readonly<
    Record<string, Readonly<Record<string, { readonly responses: Readonly<Record<string, Answer>> }>>>
  >;
}

interface Answer {
  readonly content?: Readonly<Record<string, { readonly schema: Schema }>>;
}

/** Fails if the value lacks a field of the schema, has one more, or one of another kind. */
export function assertFits(api: OpenApi, schema: Schema, value: unknown, what: string): void {
  const exact = exactly(api, schema);
  if (Check(exact, value)) return;
  assert.fail(`${what} does not fit its schema: ${JSON.stringify(Errors(exact, value)[1])}`);
}

/** Returns the schema without references and open objects. */
function exactly(api: OpenApi, schema: Schema): Schema {
  const name = schema.$ref?.split('/').at(-1);
  if (name !== undefined) return exactly(api, api.components.schemas[name]!);
  const entries = Object.entries(schema).map(([key, value]: [string, unknown]): [string, unknown] => [
    key,
    typeof value === 'object' && value !== null && !Array.isArray(value)
      ? exactly(api, value)
      : Array.isArray(value)
        ? value.map((each: unknown) => (typeof each === 'object' ? exactly(api, each as Schema) : each))
        : value,
  ]);
  const copy = Object.fromEntries(entries) as Schema;
  return typeof copy.properties === 'object' && 'type' in copy
    ? { ...copy, ...{ additionalProperties: false } }
    : copy;
}
