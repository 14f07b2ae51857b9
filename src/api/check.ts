/** Checks documents from files against their schemas. Requests are checked by Fastify. */
import type * as Type from 'typebox';
import { Check, Errors } from 'typebox/schema';
import type { JsonSchema } from './allowed.ts';
import { findProblem, type Problem } from './problem.ts';

/** Returns the problem of the value; undefined if it fits the schema. */
export function problemOf<T extends Type.TSchema>(schema: T, value: unknown): Problem | undefined {
  if (Check(schema, value)) return undefined;
  const [, errors] = Errors(schema, value);
  return findProblem(schema as JsonSchema, value, errors);
}
