/**
 * Named vaults in the daemon's configuration (docs/dattod.md, `vaults`): their locations, and the files of their keys
 * and credentials. Secrets are in files that only root reads, never in the configuration itself.
 */
import { AgentError } from '../base/errors.ts';
import { isVaultLocation, parseVaultLocation } from './store/location.ts';

export interface VaultSettings {
  /** `vault:/path` or `vault+s3://…`. */
  readonly location: string;
  readonly key_file?: string;
  readonly passphrase_file?: string;
  /** Path of JSON with `access_key_id` and `secret_access_key`; otherwise the environment, then ~/.aws/credentials. */
  readonly credentials_file?: string;
  readonly region?: string;
  /** Path of the certificate authorities of the S3 endpoint, in PEM. */
  readonly ca_file?: string;
  /** Allows http to another machine. */
  readonly insecure?: boolean;
  /** Bytes per second, in each direction. */
  readonly rate?: number;
  /** zstd level. */
  readonly compression?: number;
}

export type NamedVaults = Readonly<Record<string, VaultSettings>>;

const checks: Record<keyof VaultSettings, (value: unknown) => boolean> = {
  location: (value) => typeof value === 'string' && isVaultLocation(value),
  key_file: isPath,
  passphrase_file: isPath,
  credentials_file: isPath,
  region: (value) => typeof value === 'string' && value !== '',
  ca_file: isPath,
  insecure: (value) => typeof value === 'boolean',
  rate: (value) => typeof value === 'number' && Number.isInteger(value) && value > 0,
  compression: (value) => typeof value === 'number' && Number.isInteger(value) && value >= 1 && value <= 19,
};

/** Checks `vaults` of a configuration file. Messages begin with `where`. Throws BAD_USAGE with the name of the key. */
export function checkVaults(value: unknown, where: string): NamedVaults {
  if (!isObject(value)) throw new AgentError('BAD_USAGE', `${where} must be an object of vaults by name`);
  for (const [name, settings] of Object.entries(value)) {
    if (!/^[a-z0-9][a-z0-9_-]*$/.test(name))
      throw new AgentError('BAD_USAGE', `${where}: "${name}" is not a valid name (a-z, 0-9, _ and -)`);
    if (!isObject(settings)) throw new AgentError('BAD_USAGE', `${where}: "${name}" is not an object`);
    for (const [key, given] of Object.entries(settings)) {
      if (!Object.hasOwn(checks, key))
        throw new AgentError('BAD_USAGE', `${where}: "${name}" has the unknown key "${key}"`, {
          hint: `choose from ${Object.keys(checks).join(', ')}`,
        });
      if (!checks[key as keyof VaultSettings](given))
        throw new AgentError('BAD_USAGE', `${where}: "${name}": "${key}" cannot be ${JSON.stringify(given)}`);
    }
    if (typeof settings['location'] !== 'string')
      throw new AgentError('BAD_USAGE', `${where}: "${name}" has no "location"`);
    if (parseVaultLocation(settings['location']).kind === 'named')
      throw new AgentError('BAD_USAGE', `${where}: "${name}" has the name of another vault as its location`);
  }
  return value as unknown as NamedVaults;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isPath(value: unknown): boolean {
  return typeof value === 'string' && value.startsWith('/');
}
