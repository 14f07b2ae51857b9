/**
 * Opens the vault that a command names, does the work, and always closes the vault. The code of vaults is loaded when
 * a command runs, so all other commands start as fast as without vaults.
 */
import type { Command } from 'commander';
import type { ChunkIndex } from '../../vault/index/chunk-index.ts';
import type { KeyMaterial } from '../../vault/key-material.ts';
import type { OpenedVault, VaultContext } from '../../vault/opening.ts';
import type { VaultLocation } from '../../vault/store/location.ts';
import type { Vault } from '../../vault/vault.ts';
import type { Context } from '../context.ts';
import type { Io } from '../io.ts';
import { untilInterrupted } from './interrupt.ts';
import { type VaultValues, defaultVault } from './options.ts';
import { givenKey } from './secrets.ts';
import { waitingHooks } from './waiting.ts';

/** The vault and the key that the options of a command name. Nothing is opened yet. */
export interface Wanted {
  readonly location: VaultLocation;
  readonly context: VaultContext;
  /** Undefined: use the key on this machine. */
  readonly key: KeyMaterial | undefined;
}

export interface Session {
  readonly wanted: Wanted;
  readonly opened: OpenedVault;
  readonly vault: Vault;
  /** Returns the index of the vault on this machine. Opens it at the first call. */
  readonly index: () => ChunkIndex;
  readonly signal: AbortSignal;
}

/** Throws BAD_TARGET, BAD_USAGE (options, configuration), FILE_ERROR. */
export async function readWanted(
  io: Io,
  self: Command,
  location?: string,
  options: { readonly key: boolean } = { key: true },
): Promise<Wanted> {
  const { parseVaultLocation } = await import('./library.ts');
  const values = self.opts<VaultValues>();
  const vaults = await namedVaults(self);
  return {
    location: parseVaultLocation(location ?? values.vault ?? defaultVault),
    context: { vaults, stateDirectory: values.stateDir },
    key: options.key ? await givenKey(values, io) : undefined,
  };
}

async function namedVaults(self: Command): Promise<VaultContext['vaults']> {
  const { readConfig } = await import('../../daemon/config.ts');
  const { config } = self.opts<VaultValues>();
  return (await readConfig(config, self.getOptionValueSource('config') === 'cli')).vaults;
}

export async function withVault<T>(
  context: Context,
  self: Command,
  work: (session: Session) => Promise<T>,
): Promise<T> {
  const { openVault, ChunkIndex } = await import('./library.ts');
  const wanted = await readWanted(context.io, self);
  return untilInterrupted(context.io, async (signal) => {
    const hooks = waitingHooks(context);
    const opened = await openVault(wanted.location, wanted.context, wanted.key, { signal, hooks });
    let index: ChunkIndex | undefined;
    try {
      return await work({
        wanted,
        opened,
        vault: opened.vault,
        index: () => (index ??= ChunkIndex.open(opened.indexPath, opened.vault.id)),
        signal,
      });
    } finally {
      index?.close();
      await opened.vault.store.close();
    }
  });
}
