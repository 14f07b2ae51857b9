/**
 * Named vaults in the configuration (docs/dattod.md): their locations, and the files of their keys and credentials.
 * Secrets are in files that only root reads, never in the configuration itself.
 */
import * as Type from 'typebox';
import { absolutePath, closed, flag, mapOf, wholeNumber } from './schema.ts';

export const vaultSettings = closed({
  location: Type.String({
    pattern: '^vault[:+]',
    title: 'the location of a vault',
    description: '`vault:/path` or `vault+s3://HOST[:PORT]/BUCKET[/PREFIX]`',
  }),
  key_file: Type.Optional(
    absolutePath('the key; without it and `passphrase_file`, `STATE/vault-keys/ID.key`'),
  ),
  passphrase_file: Type.Optional(absolutePath('a passphrase, as the only line of the file')),
  credentials_file: Type.Optional(
    absolutePath(
      'for S3, JSON with `access_key_id` and `secret_access_key`; otherwise the environment, then AWS files',
    ),
  ),
  region: Type.Optional(Type.String({ minLength: 1, description: 'for S3 (`us-east-1`)' })),
  ca_file: Type.Optional(absolutePath('for S3, PEM of the authorities to trust')),
  insecure: Type.Optional(flag('http to another machine is allowed (false)')),
  rate: Type.Optional(
    Type.Integer({ minimum: 1, description: 'limit in bytes per second, in each direction' }),
  ),
  compression: Type.Optional(
    wholeNumber(
      1,
      19,
      'level of zstd (1); 3 takes some 1 to 7 % less room, and up to half as much time again',
    ),
  ),
});
export type VaultSettings = Type.Static<typeof vaultSettings>;

/** `vault:NAME` stands for the vault of that name. */
export const namedVaults = mapOf(vaultSettings, {
  description: 'vaults by name, see below',
  propertyNames: { pattern: '^[a-z0-9][a-z0-9_-]*$', title: 'a valid name (a-z, 0-9, _ and -)' },
});
export type NamedVaults = Type.Static<typeof namedVaults>;
