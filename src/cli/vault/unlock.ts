/** `vault unlock [ID]`: lists active writers and locks, or removes one of them. */
import type { Command } from 'commander';
import { listAtWork, unlockVault } from '../../vault/prune/unlock.ts';
import type { Context } from '../context.ts';
import { type AtWorkDocument, type UnlockedDocument, participantDocument } from './documents.ts';
import { renderAtWork, renderParticipant } from './render-vault.ts';
import { withVault } from './session.ts';

export async function unlockOne(context: Context, self: Command): Promise<number> {
  const [id] = self.args;
  if (id === undefined) {
    const { writers, locks } = await withVault(context, self, ({ vault, signal }) =>
      listAtWork(vault, { signal }),
    );
    const document: AtWorkDocument = {
      writers: writers.map(participantDocument),
      locks: locks.map(participantDocument),
    };
    context.print(document, () => renderAtWork(document));
    return 0;
  }
  const { role, participant } = await withVault(context, self, ({ vault, signal }) =>
    unlockVault(vault, id, { signal }),
  );
  const document: UnlockedDocument = { unlocked: { role, ...participantDocument(participant) } };
  context.print(
    document,
    () =>
      `${role === 'lock' ? 'the lock is removed' : 'the writer is declared stale'}: ${renderParticipant(document.unlocked)}\n`,
  );
  return 0;
}
