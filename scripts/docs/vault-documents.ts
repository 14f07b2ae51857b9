/** The list of the `--json` documents of the vault commands (docs/vault.md), from their schemas. */
import type * as Type from 'typebox';
import type { JsonSchema } from '../../src/api/allowed.ts';
import * as keys from '../../src/api/vault/output/keys.ts';
import * as points from '../../src/api/vault/output/points.ts';
import * as recovery from '../../src/api/vault/output/recovery.ts';
import * as upkeep from '../../src/api/vault/output/upkeep.ts';

const commands: readonly (readonly [string, Type.TSchema])[] = [
  ['`vault init`', keys.initDocument],
  ['`vault info`', keys.infoDocument],
  ['`vault stats`', upkeep.statsDocument],
  ['`vault check`', upkeep.checkDocument],
  ['`vault prune`', upkeep.pruneDocument],
  ['`vault key list`', keys.keyListDocument],
  ['`vault key add`, `vault key change`', keys.keyChangeDocument],
  ['`vault key remove`', keys.keyRemovedDocument],
  ['`vault unlock`', upkeep.atWorkDocument],
  ['`vault unlock ID`', upkeep.unlockedDocument],
  ['`points`', points.pointsDocument],
  ['`points POINT`', points.onePointDocument],
  ['`diff`', points.diffDocument],
  ['`restore`', recovery.restoreDocument],
  ['`restore --files`', recovery.restoreFilesDocument],
  ['`mount`, `umount`; `mount` without arguments: a list of these', recovery.mountDocument],
  ['`export`, at the start', recovery.exportDocument],
  ['`verify POINT`', recovery.verifyDocument],
  ['`forget`', points.forgetDocument],
];

export function vaultDocuments(): string {
  return commands.map(([command, schema]) => `- ${command}: ${fieldsOf(schema as JsonSchema)}\n`).join('');
}

/** `id`, `machine` (`name`, `boot`), … */
function fieldsOf(schema: JsonSchema): string {
  return Object.entries(schema.properties ?? {})
    .map(([name, each]) => {
      const inner = fieldsOf(objectIn(each));
      return inner === '' ? `\`${name}\`` : `\`${name}\` (${inner})`;
    })
    .join(', ');
}

function objectIn(schema: JsonSchema): JsonSchema {
  const inner = schema.anyOf?.[0] ?? schema.items;
  return inner === undefined || Array.isArray(inner) ? schema : objectIn(inner);
}
