/** `vault key list`: lists the keys of a vault. Needs no key. */
import { Command } from 'commander';
import type { Context, Run } from '../../../context.ts';
import { localTime } from '../../../render/local-time.ts';
import { printable, renderTable } from '../../../render/table.ts';
import type { KeyListDocument } from '../../../../api/vault/output/keys.ts';
import { keyDocument } from '../../../vault/documents.ts';
import { untilInterrupted } from '../../../vault/interrupt.ts';
import { addPlaceOptions, addVaultOption } from '../../../vault/options.ts';
import { keyKinds, keysNotVerified } from '../../../vault/render-keys.ts';
import { readWanted } from '../../../vault/session.ts';
import { waitingHooks } from '../../../vault/waiting.ts';

export function keyList(run: Run): Command {
  return addPlaceOptions(addVaultOption(new Command('list')))
    .description('Lists the keys of a vault. Needs no key.')
    .action(run(showKeys));
}

async function showKeys(context: Context, self: Command): Promise<number> {
  const wanted = await readWanted(context.io, self);
  const { findVault, listKeys, openPlace } = await import('../../../vault/library.ts');
  const place = await findVault(wanted.location, wanted.context);
  const { slots, damaged } = await untilInterrupted(context.io, async (signal) => {
    const store = await openPlace(place, { hooks: waitingHooks(context) });
    try {
      return await listKeys({ store }, { signal });
    } finally {
      await store.close();
    }
  });
  const document: KeyListDocument = {
    keys: slots.map(keyDocument),
    damaged: damaged.map(({ id, error }) => ({ id, message: error.message })),
  };
  context.print(document, () => renderKeyList(document));
  return damaged.length > 0 ? 5 : 0;
}

function renderKeyList({ keys, damaged }: KeyListDocument): string {
  const table = renderTable(
    [{ title: 'key' }, { title: 'kind' }, { title: 'label' }, { title: 'since' }],
    keys.map(({ id, kind, label, created }) => [id, keyKinds[kind], label, localTime(created)]),
  );
  return `${table}${keysNotVerified}\n${damaged.map(({ id, message }) => `damaged: ${id}: ${printable(message)}\n`).join('')}`;
}
