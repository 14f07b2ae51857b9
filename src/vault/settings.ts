/** Named vaults of the daemon's configuration: the checks of their locations that a schema cannot express. */
import type { NamedVaults } from '../api/vault-settings.ts';
import { AgentError } from '../base/errors.ts';
import { parseVaultLocation } from './store/location.ts';

/** Throws BAD_USAGE if a vault is named instead of located, and BAD_TARGET if a location is malformed. */
export function checkLocations(vaults: NamedVaults, where: string): void {
  for (const [name, { location }] of Object.entries(vaults))
    if (parseVaultLocation(location).kind === 'named')
      throw new AgentError('BAD_USAGE', `${where}: "${name}" has the name of another vault as its location`);
}
