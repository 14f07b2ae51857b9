/**
 * Vaults by name, as the daemon's configuration holds them (docs/dattod.md, `vaults`): where each is, and where its
 * key and its credentials lie. Secrets are in files that root alone reads, never in the configuration itself.
 */
import { AgentError } from '../base/errors.ts';
import { isVaultLocation, parseVaultLocation } from './store/location.ts';

export interface VaultSettings {
  /** `vault:/path` or `vault+s3://…`. */
  readonly location: string;
  readonly key_file?: string;
  readonly passphrase_file?: string;
  /** JSON with `access_key_id` and `secret_access_key`; otherwise the environment, then ~/.aws/credentials. */
  readonly credentials_file?: string;
  readonly region?: string;
  /** Authorities of the S3 endpoint, PEM. */
  readonly ca_file?: string;
  /** http to another machine is allowed. */
  readonly insecure?: boolean;
  /** Bytes per second, each way. */
  readonly rate?: number;
  /** zstd's level. */
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

/** Checks the `vaults` of a configuration file. `where` begins the message. Throws BAD_USAGE naming the key. */
export function checkVaults(value: unknown, where: string): NamedVaults {
  if (!isObject(value)) throw new AgentError('BAD_USAGE', `${where} is not an object of vaults by name`);
  for (const [name, settings] of Object.entries(value)) {
    if (!/^[a-z0-9][a-z0-9_-]*$/.test(name))
      throw new AgentError('BAD_USAGE', `${where}: "${name}" is no name (a-z, 0-9, _ and -)`);
    if (!isObject(settings)) throw new AgentError('BAD_USAGE', `${where}: "${name}" is not an object`);
    for (const [key, given] of Object.entries(settings)) {
      if (!Object.hasOwn(checks, key))
        throw new AgentError('BAD_USAGE', `${where}: "${name}" has the unknown key "${key}"`, {
          hint: `known are ${Object.keys(checks).join(', ')}`,
        });
      if (!checks[key as keyof VaultSettings](given))
        throw new AgentError('BAD_USAGE', `${where}: "${name}": "${key}" cannot be ${JSON.stringify(given)}`);
    }
    if (typeof settings['location'] !== 'string')
      throw new AgentError('BAD_USAGE', `${where}: "${name}" has no "location"`);
    if (parseVaultLocation(settings['location']).kind === 'named')
      throw new AgentError('BAD_USAGE', `${where}: "${name}" names another vault instead of a place`);
  }
  return value as unknown as NamedVaults;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isPath(value: unknown): boolean {
  return typeof value === 'string' && value.startsWith('/');
}
