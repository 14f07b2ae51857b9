/** Reads the JSON documents of a vault by their schemas (src/api/vault). Messages begin with `where`. */
import type * as Type from 'typebox';
import { compiledProblemOf, knownFields, problemOf } from '../api/check.ts';
import type { Problem } from '../api/problem.ts';
import type { Stored } from '../api/vault/stored.ts';
import { AgentError } from '../base/errors.ts';

/** Returns the document without unknown fields. Throws VAULT_DAMAGED if it does not fit the schema. */
export function readStored<T extends Type.TSchema>(schema: T, document: unknown, where: string): Stored<T> {
  const problem = problemOf(schema, document);
  if (problem !== undefined) throw damaged(problem, where);
  return knownFields(schema, document) as Stored<T>;
}

/** Returns the same function for documents of one kind, of which a vault may hold thousands. */
export function manyStored<T extends Type.TSchema>(
  schema: T,
): (document: unknown, where: string) => Stored<T> {
  const check = compiledProblemOf(schema);
  return (document, where) => {
    const problem = check(document);
    if (problem !== undefined) throw damaged(problem, where);
    return knownFields(schema, document) as Stored<T>;
  };
}

export function damaged({ parents, name, is }: Problem, where: string): AgentError {
  const field = name === '' ? [] : [`${name} ${is}`];
  const text = [where, ...parents, ...field].join(': ');
  return new AgentError('VAULT_DAMAGED', name === '' ? `${text} ${is}` : text);
}
