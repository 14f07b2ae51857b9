/** `vault key remove`: removes a key from a vault. */
import { Command } from 'commander';
import type { KeyRemovedDocument } from '../../../../api/vault/output/keys.ts';
import type { Context, Run } from '../../../context.ts';
import { addVaultOptions } from '../../../vault/options.ts';
import { withVault } from '../../../vault/session.ts';

export function keyRemove(run: Run): Command {
  const command = new Command('remove')
    .description(
      'Removes a key, but never the last one. A removed key still opens copies of the vault that ' +
        'were made before.',
    )
    .argument('<key>', 'ID, its beginning (at least 4 digits), or label');
  return addVaultOptions(command).action(run(removeOneKey));
}

async function removeOneKey(context: Context, self: Command): Promise<number> {
  const [text = ''] = self.args;
  const { findKey, listKeys, removeKey } = await import('../../../vault/library.ts');
  const removed = await withVault(context, self, async ({ vault, signal }) => {
    const id = findKey(await listKeys(vault, { signal }), text);
    await removeKey(vault, id, { signal });
    return id;
  });
  const document: KeyRemovedDocument = { removed };
  context.print(document, () => `key ${removed} is removed\n`);
  return 0;
}
