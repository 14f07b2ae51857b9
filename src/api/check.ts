/** Checks documents from files against their schemas. Requests are checked by Fastify. */
import type * as Type from 'typebox';
import { Check, Compile, Errors } from 'typebox/schema';
import type { JsonSchema } from './allowed.ts';
import { findProblem, type Problem } from './problem.ts';

/** Returns the problem of the value; undefined if it fits the schema. */
export function problemOf(schema: Type.TSchema, value: unknown): Problem | undefined {
  return Check(schema, value) ? undefined : explain(schema, value);
}

/**
 * Returns the same for documents that come by the thousand. The schema is compiled at first use, in some milliseconds;
 * a check then takes a hundredth of the time.
 */
export function compiledProblemOf(schema: Type.TSchema): (value: unknown) => Problem | undefined {
  let compiled: ReturnType<typeof Compile> | undefined;
  return (value) => {
    compiled ??= Compile(schema);
    return compiled.Check(value) ? undefined : explain(schema, value);
  };
}

function explain(schema: Type.TSchema, value: unknown): Problem {
  const [, errors] = Errors(schema, value);
  return findProblem(schema, value, errors);
}

/** Returns the value without the fields that its schema does not know. The value must fit the schema. */
export function knownFields<T extends Type.TSchema>(schema: T, value: unknown): Type.Static<T> {
  return prune(schema, value) as Type.Static<T>;
}

function prune(schema: JsonSchema, value: unknown): unknown {
  const { anyOf, items, properties } = schema;
  if (typeof value !== 'object' || value === null) return value;
  if (anyOf !== undefined) return prune(anyOf.find(({ type }) => type !== 'null') ?? {}, value);
  if (Array.isArray(value)) return items === undefined ? value : value.map((each) => prune(items, each));
  if (properties === undefined) return value;
  const given = value as Readonly<Record<string, unknown>>;
  const known = Object.entries(properties).filter(([name]) => Object.hasOwn(given, name));
  return Object.fromEntries(known.map(([name, each]) => [name, prune(each, given[name])]));
}
