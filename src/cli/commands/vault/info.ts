/** `vault info`: the public settings of a vault and, if a key opens it, a summary of its content. */
import { Command } from 'commander';
import { formatBytes } from '../../../base/bytes.ts';
import { AgentError } from '../../../base/errors.ts';
import type { OpenVaultOptions } from '../../../vault/opening.ts';
import type { Context, Run } from '../../context.ts';
import { localTime } from '../../render/local-time.ts';
import { renderList } from '../../render/table.ts';
import type { InfoDocument } from '../../../api/vault/output/keys.ts';
import { keyDocument } from '../../vault/documents.ts';
import { untilInterrupted } from '../../vault/interrupt.ts';
import { addVaultOptions } from '../../vault/options.ts';
import { keyText, keysNotVerified } from '../../vault/render-keys.ts';
import { type Wanted, readWanted } from '../../vault/session.ts';
import { waitingHooks } from '../../vault/waiting.ts';

export function info(run: Run): Command {
  return addVaultOptions(
    new Command('info').description(
      'Shows the settings and keys of a vault and, if a key opens it, a summary of its content.',
    ),
  )
    .option(
      '--accept-vault <id>',
      'accept this vault where a different one was seen before, if the key opens it',
    )
    .action(run(showInfo));
}

async function showInfo(context: Context, self: Command): Promise<number> {
  const wanted = await readWanted(context.io, self);
  const { acceptVault: accept } = self.opts<{ acceptVault?: string }>();
  const document = await untilInterrupted(context.io, (signal) =>
    gather(wanted, { signal, hooks: waitingHooks(context), accept }),
  );
  context.print(document, () => renderInfo(document));
  return document.damaged_keys.length > 0 || (document.contents?.damaged_points ?? 0) > 0 ? 5 : 0;
}

async function gather(wanted: Wanted, options: OpenVaultOptions): Promise<InfoDocument> {
  const { findVault, formatVaultLocation, openPlace, readSlots, readVaultConfig } =
    await import('../../vault/library.ts');
  const place = await findVault(wanted.location, wanted.context);
  const { signal, hooks } = options;
  const store = await openPlace(place, { hooks });
  try {
    const config = await readVaultConfig(store, { signal });
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
  const { openVault, listPoints } = await import('../../vault/library.ts');
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

function renderInfo(info: InfoDocument): string {
  const entries: [string, string][] = [
    ['vault', info.location],
    ['id', info.id],
    ['made', localTime(info.created)],
    ['chunks', formatBytes(info.chunk_size)],
    ['packs', formatBytes(info.pack_size)],
    ...info.keys.map((key): [string, string] => ['key', keyText(key)]),
    ...info.damaged_keys.map(({ id, message }): [string, string] => ['damaged', `key ${id}: ${message}`]),
  ];
  const { contents } = info;
  entries.push(['', keysNotVerified]);
  if (contents === null) entries.push(['points', 'a key is needed to list them']);
  else {
    entries.push(['points', String(contents.points)]);
    if (contents.damaged_points > 0)
      entries.push(['damaged', `${contents.damaged_points} points; run dattocli vault check`]);
    if (contents.machines.length > 0) entries.push(['machines', contents.machines.join(', ')]);
    if (contents.first !== null) entries.push(['first', localTime(contents.first)]);
    if (contents.last !== null) entries.push(['last', localTime(contents.last)]);
  }
  return renderList(entries);
}
