/** Recognises the objects of a vault by their keys (docs/formats/vault.md, "Objects"). Pure. */
import { packOfObject } from '../packs/format.ts';

const id = '[0-9a-f]{32}';
const known = new RegExp(
  `^(vault\\.json|keys/${id}\\.json|points/${id}|protected/${id}|checks/${id}/${id}|` +
    `writers/${id}(\\.beat|\\.end)?|condemned/${id}(\\.waits)?|locks/${id}(\\.beat)?)$`,
);

export type ObjectKind = 'pack' | 'other' | 'foreign';

export function objectKind(key: string): ObjectKind {
  if (packOfObject(key) !== undefined) return 'pack';
  return known.test(key) ? 'other' : 'foreign';
}
