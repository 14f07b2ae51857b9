/** `vault info`: the public settings of a vault and, if a key opens it, a summary of its content. */
import type { Command } from 'commander';
import { AgentError } from '../../base/errors.ts';
import { readConfig } from '../../vault/config.ts';
import { type OpenVaultOptions, findVault, openPlace, openVault } from '../../vault/opening.ts';
import { listPoints } from '../../vault/points/points.ts';
import { formatVaultLocation } from '../../vault/store/location.ts';
import { readSlots } from '../../vault/unlock.ts';
import type { Context } from '../context.ts';
import { type InfoDocument, keyDocument } from './documents.ts';
import { untilInterrupted } from './interrupt.ts';
import { renderInfo } from './render-vault.ts';
import { type Wanted, readWanted } from './session.ts';
import { waitingHooks } from './waiting.ts';

export async function showInfo(context: Context, self: Command): Promise<number> {
  const wanted = await readWanted(context.io, self);
  const { acceptVault: accept } = self.opts<{ acceptVault?: string }>();
  const document = await untilInterrupted(context.io, (signal) =>
    gather(wanted, { signal, hooks: waitingHooks(context), accept }),
  );
  context.print(document, () => renderInfo(document));
  return document.damaged_keys.length > 0 || (document.contents?.damaged_points ?? 0) > 0 ? 5 : 0;
}

async function gather(wanted: Wanted, options: OpenVaultOptions): Promise<InfoDocument> {
  const place = await findVault(wanted.location, wanted.context);
  const { signal, hooks } = options;
  const store = await openPlace(place, { hooks });
  try {
    const config = await readConfig(store, { signal });
    if (options.accept !== undefined && options.accept !== config.id)
      throw new AgentError(
        'VAULT_EXCHANGED',
        `${formatVaultLocation(place.location)} holds the vault ${config.id}, not ${options.accept}`,
        { hint: 'check that the right disk is mounted; --accept-vault takes the whole vault ID' },
      );
    const { slots, damaged } = await readSlots(store, { signal });
    return {
      location: formatVaultLocation(place.location),
      id: config.id,
      created: config.created,
      chunk_size: config.chunkSize,
      pack_size: config.packSize,
      keys: slots.map(keyDocument),
      damaged_keys: damaged.map(({ id, error }) => ({ id, message: error.message })),
      contents: await contentsOf(wanted, options),
    };
  } finally {
    await store.close();
  }
}

async function contentsOf(wanted: Wanted, options: OpenVaultOptions): Promise<InfoDocument['contents']> {
  let opened;
  try {
    opened = await openVault(wanted.location, wanted.context, wanted.key, options);
  } catch (error) {
    // Without a key, the public part is shown. A given key that does not fit is an error.
    const mayLackKey = wanted.key === undefined && options.accept === undefined;
    if (mayLackKey && error instanceof AgentError && error.code === 'VAULT_NO_KEY') return null;
    throw error;
  }
  try {
    const { points, damaged } = await listPoints(opened.vault, { signal: options.signal });
    return {
      points: points.length,
      damaged_points: damaged.length,
      machines: [...new Set(points.map(({ machine }) => machine.name))].sort(),
      first: points[0]?.finished ?? null,
      last: points.at(-1)?.finished ?? null,
    };
  } finally {
    await opened.vault.store.close();
  }
}
