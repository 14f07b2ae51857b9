/** `vault unlock [ID]`: lists active writers and locks, or removes one of them. */
import { Command } from 'commander';
import type { Context, Run } from '../../context.ts';
import { localTime } from '../../render/local-time.ts';
import { renderTable } from '../../render/table.ts';
import type { AtWorkDocument, UnlockedDocument } from '../../../api/vault/output/upkeep.ts';
import { participantDocument } from '../../vault/documents.ts';
import { renderParticipant } from '../../vault/render-participant.ts';
import { addVaultOptions } from '../../vault/options.ts';
import { withVault } from '../../vault/session.ts';

export function unlock(run: Run): Command {
  const command = new Command('unlock')
    .description(
      'Lists active writers and locks. With ID: removes that writer or lock. Use this only if its ' +
        'process is gone for good.',
    )
    .argument('[id]', 'ID of a writer or lock, or its first digits (at least 4)');
  return addVaultOptions(command).action(run(unlockOne));
}

async function unlockOne(context: Context, self: Command): Promise<number> {
  const { listAtWork, unlockVault } = await import('../../vault/library.ts');
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

function renderAtWork({ writers, locks }: AtWorkDocument): string {
  const all = [...writers, ...locks];
  if (all.length === 0) return 'no active writers or locks\n';
  return renderTable(
    [
      { title: 'id' },
      { title: 'what' },
      { title: 'host' },
      { title: 'process', align: 'right' },
      { title: 'since' },
      { title: 'last sign of life' },
    ],
    all.map(({ id, what, host, pid, started, last_sign: sign }) => [
      id,
      what === '' ? '?' : what,
      host ?? '?',
      pid === null ? '?' : String(pid),
      started === '' ? '?' : localTime(started),
      localTime(sign),
    ]),
  );
}
