/** The `--json` documents of `vault init`, `vault info`, `vault key` (docs/vault.md, "For scripts"). */
import * as Type from 'typebox';
import { choice, count, nullable, text, time } from '../../schema.ts';
import type { Stored } from '../stored.ts';

const key = Type.Object({
  id: text('ID of the key'),
  kind: choice(['passphrase', 'file', 'recovery'], 'kind of the key'),
  label: text('empty if there is none'),
  created: time('when the key was made'),
});

const damagedKeys = Type.Array(Type.Object({ id: text('ID of the key'), message: text('the damage') }), {
  description: 'key slots that cannot be read',
});

const vault = {
  location: text('such as `vault:/path` or `vault+s3://…`'),
  id: text('ID of the vault'),
  created: time('when the vault was created'),
  chunk_size: count('bytes'),
  pack_size: count('bytes'),
};

const newSecrets = {
  key_file: nullable(text('path of the key file that was created or used')),
  recovery_code: nullable(text('shown only once')),
};

export const initDocument = Type.Object({ ...vault, ...newSecrets, keys: Type.Array(key) });

export const infoDocument = Type.Object({
  ...vault,
  keys: Type.Array(key),
  damaged_keys: damagedKeys,
  contents: nullable(
    Type.Object({
      points: count('recovery points'),
      damaged_points: count('objects under `points/` that cannot be read'),
      machines: Type.Array(Type.String()),
      first: nullable(time('time of the first point')),
      last: nullable(time('time of the last point')),
    }),
    { description: 'null if this machine has no key' },
  ),
});

export const keyListDocument = Type.Object({ keys: Type.Array(key), damaged: damagedKeys });

export const keyChangeDocument = Type.Object({
  added: key,
  removed: nullable(text('ID of the key that was replaced, if it was removed')),
  warning: nullable(text('why the replaced key may still open the vault')),
  ...newSecrets,
});

export const keyRemovedDocument = Type.Object({ removed: text('ID of the key') });

export type KeyDocument = Stored<typeof key>;
export type InitDocument = Stored<typeof initDocument>;
export type InfoDocument = Stored<typeof infoDocument>;
export type KeyListDocument = Stored<typeof keyListDocument>;
export type KeyChangeDocument = Type.Static<typeof keyChangeDocument>;
export type KeyRemovedDocument = Stored<typeof keyRemovedDocument>;
