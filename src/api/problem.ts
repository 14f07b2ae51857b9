/**
 * Turns the errors of a validator into one problem, in our own words: the field, the given value and the allowed ones.
 * Requests are checked by Fastify's Ajv, files by TypeBox. Both report errors in the form of Ajv.
 */
import { allowedValues, type JsonSchema } from './allowed.ts';

/** An error as Ajv and TypeBox report it. */
export interface ValidationError {
  readonly keyword: string;
  /** JSON pointer (RFC 6901) of the wrong value. */
  readonly instancePath: string;
  readonly params: object;
}

export interface Problem {
  /** The places that lead to the field, from the outside: `job_options`, `devices[0]`. */
  readonly parents: readonly string[];
  /** The field. Empty if the document itself is wrong. */
  readonly name: string;
  /** Completes a sentence that begins with the name: `is 0, not a whole number from 1`, `is missing`. */
  readonly is: string;
  /** The known names, if the name is unknown. */
  readonly known?: readonly string[];
}

/** Returns the deepest problem. `errors` are those of `value` against `schema`, at least one. */
export function findProblem(schema: JsonSchema, value: unknown, errors: readonly ValidationError[]): Problem {
  const found = errors.map((error) => locate(error));
  const depth = Math.max(...found.map(({ path }) => path.length));
  const deepest = found.filter(({ path }) => path.length === depth);
  const { path, kind } = deepest.find((each) => each.kind !== 'wrong') ?? deepest[0]!;
  const parents = places(path);
  const name = parents.pop() ?? '';
  if (kind === 'missing') return { parents, name, is: 'is missing' };
  const parent = schemaAt(schema, path.slice(0, -1));
  if (kind === 'unknown')
    return { parents, name, is: 'is unknown', known: Object.keys(parent?.properties ?? {}) };
  if (kind === 'name') return { parents, name, is: `is not ${allowedValues(parent?.propertyNames ?? {})}` };
  const allowed = allowedValues(schemaAt(schema, path) ?? {});
  return { parents, name, is: `is ${shorten(valueAt(value, path))}, not ${allowed}` };
}

/** `job_options: "rate" is 1.5, not a whole number from 1`. */
export function problemText({ parents, name, is, known }: Problem): string {
  if (name === '') return is;
  const last = known === undefined ? `"${name}" ${is}` : `unknown key "${name}"`;
  return [...parents, last].join(': ');
}

/** The next step, if the name of the field is unknown. */
export function problemHint({ known }: Problem): string | undefined {
  return known === undefined ? undefined : `known are ${known.join(', ')}`;
}

interface Location {
  readonly path: readonly string[];
  readonly kind: 'missing' | 'unknown' | 'name' | 'wrong';
}

/** Ajv names one property in an error, TypeBox a list of them. */
function locate({ keyword, instancePath, params }: ValidationError): Location {
  const at = instancePath.split('/').slice(1).map(decodeSegment);
  const first = (one: string, several: string): string => {
    const given = params as Readonly<Record<string, unknown>>;
    return String(given[one] ?? (given[several] as readonly unknown[])[0]);
  };
  switch (keyword) {
    case 'required':
      return { path: [...at, first('missingProperty', 'requiredProperties')], kind: 'missing' };
    case 'additionalProperties':
      return { path: [...at, first('additionalProperty', 'additionalProperties')], kind: 'unknown' };
    case 'boolean':
      return { path: at, kind: 'unknown' };
    case 'propertyNames':
      return { path: [...at, first('propertyName', 'propertyNames')], kind: 'name' };
    default:
      return { path: at, kind: 'wrong' };
  }
}

function decodeSegment(segment: string): string {
  return segment.replaceAll('~1', '/').replaceAll('~0', '~');
}

/** `devices`, `0`, `size` become `devices[0]`, `size`. */
function places(path: readonly string[]): string[] {
  const found: string[] = [];
  for (const segment of path)
    if (found.length > 0 && /^\d+$/.test(segment)) found.push(`${found.pop()!}[${segment}]`);
    else found.push(segment);
  return found;
}

function schemaAt(schema: JsonSchema | undefined, path: readonly string[]): JsonSchema | undefined {
  const [segment, ...rest] = path;
  if (segment === undefined || schema === undefined) return schema;
  const inner = schema.anyOf?.find((each) => each.type === 'object' || each.type === 'array') ?? schema;
  if (inner.properties !== undefined && Object.hasOwn(inner.properties, segment))
    return schemaAt(inner.properties[segment], rest);
  const others = typeof inner.additionalProperties === 'object' ? inner.additionalProperties : undefined;
  return schemaAt(inner.items ?? others, rest);
}

function valueAt(value: unknown, path: readonly string[]): unknown {
  return path.reduce<unknown>(
    (at, segment) =>
      typeof at === 'object' && at !== null && Object.hasOwn(at, segment)
        ? (at as Readonly<Record<string, unknown>>)[segment]
        : undefined,
    value,
  );
}

const longestShown = 60;

function shorten(value: unknown): string {
  const shown = value === undefined ? 'nothing' : JSON.stringify(value);
  return shown.length > longestShown ? `${shown.slice(0, longestShown)}…` : shown;
}
