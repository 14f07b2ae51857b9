/** The parts of docs/ that come from the schemas of `src/api` and the routes of the daemon. */
import type * as Type from 'typebox';
import { allowedValues, type JsonSchema } from '../../src/api/allowed.ts';
import { configuration } from '../../src/api/configuration.ts';
import { jobOptions } from '../../src/api/job-options.ts';
import { startDocument } from '../../src/api/start.ts';
import { vaultSettings } from '../../src/api/vault-settings.ts';
import { createApi, documents } from '../../src/daemon/api.ts';
import type { RouteContext } from '../../src/daemon/routes/context.ts';
import { table } from './table.ts';

export interface OpenApi {
  readonly info: object;
  readonly paths: Readonly<Record<string, Readonly<Record<string, { readonly summary: string }>>>>;
}

/** Returns the OpenAPI document that the daemon serves. No route is called, so the handlers need no context. */
export async function openApi(): Promise<OpenApi> {
  const api = createApi({} as RouteContext, { error: () => undefined } as never);
  await api.ready();
  const document = api.swagger() as unknown as OpenApi;
  await api.close();
  return document;
}

/** Returns the table of routes, and a table for each document. */
export function apiParts({ paths }: OpenApi): [string, string][] {
  const routes = Object.entries(paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { summary }]) => [
      `\`${method.toUpperCase()} ${path.replaceAll(/\{(\w+)\}/g, ':$1')}\``,
      summary,
    ]),
  );
  return [
    ['routes', table(['route', 'effect'], routes)],
    ['document Start', fields(startDocument)],
    ...documents.map((each): [string, string] => [`document ${each.$id}`, fields(each)]),
    ['configuration', keys(configuration)],
    ['job options', keys(jobOptions)],
    ['vault settings', keys(vaultSettings)],
  ];
}

function keys(schema: Type.TSchema): string {
  return table(['key', 'value', 'meaning'], rowsOf(schema));
}

function fields(schema: Type.TSchema): string {
  return table(['field', 'value', 'meaning'], rowsOf(schema, { markOptional: true }));
}

/** The fields of inner objects follow their own row: `mounts[].path`, `backup.how`. Job options have their own table. */
function rowsOf(schema: JsonSchema, options: { prefix?: string; markOptional?: boolean } = {}): string[][] {
  const { prefix = '', markOptional = false } = options;
  return Object.entries(schema.properties ?? {}).flatMap(([name, each]) => {
    const place = `${prefix}${name}`;
    const inner = each.anyOf?.[0] ?? each;
    const optional = markOptional && !(schema.required ?? []).includes(name);
    const row = [
      `\`${place}\``,
      `${valueOf(each)}${optional ? ', optional' : ''}`,
      each.description ?? inner.description ?? '',
    ];
    if (Object.hasOwn(inner.properties ?? {}, 'max_freeze_ms')) return [row];
    const isList = inner.type === 'array';
    const below = { ...options, prefix: `${place}${isList ? '[]' : ''}.` };
    return [row, ...rowsOf(isList ? (inner.items ?? {}) : inner, below)];
  });
}

function valueOf(schema: JsonSchema): string {
  if (schema.anyOf !== undefined) return schema.anyOf.map(valueOf).join(' or ');
  if (schema.$ref !== undefined) return schema.$ref.replace('#', '');
  if (schema.type === 'array' && schema.items !== undefined)
    return `list of ${valueOf(schema.items).replace('object', 'objects')}`;
  if (schema.format === 'date-time') return 'time';
  return allowedValues(schema)
    .replace(/^(an?|the) /, '')
    .replace(/^whole number from 0$/, 'whole number');
}
