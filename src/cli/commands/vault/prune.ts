/** `vault prune`: frees the space of data that no point references. */
import type { PruneDocument } from '../../../api/vault/output/upkeep.ts';
import { Command } from 'commander';
import { formatBytes } from '../../../base/bytes.ts';
import type { PruneResult, PruneStep } from '../../../vault/prune/prune.ts';
import type { Context, Run } from '../../context.ts';
import { exitWithWarnings } from '../../outcome.ts';
import { printable, renderList } from '../../render/table.ts';
import { participantDocument } from '../../vault/documents.ts';
import { type VaultValues, addVaultOptions, toShare } from '../../vault/options.ts';
import { countUpdate, withProgress } from '../../vault/progress.ts';
import { renderParticipant } from '../../vault/render-participant.ts';
import { withVault } from '../../vault/session.ts';

interface Values extends VaultValues {
  readonly dryRun?: true;
  /** From 0 to 1. */
  readonly maxWaste?: number;
  readonly allowDamage?: true;
}

const words: Readonly<Record<PruneStep, readonly [string, string]>> = {
  index: ['reading', 'packs'],
  mark: ['marking', 'pages'],
  measure: ['measuring', 'parts'],
  copy: ['copying', 'packs'],
  delete: ['deleting', 'packs'],
};

export function prune(run: Run): Command {
  const command = new Command('prune')
    .description(
      'Deletes data that no recovery point references. Safe to run during backups. If interrupted, ' +
        'run it again to continue.',
    )
    .option('--dry-run', 'only show what would be done')
    .option(
      '--max-waste <share>',
      'rewrite packs of which more than this share is unused (25%)',
      toShare('--max-waste'),
    )
    .option('--allow-damage', 'prune even if it is unknown which data damaged points need');
  return addVaultOptions(command).action(run(pruneThis));
}

async function pruneThis(context: Context, self: Command): Promise<number> {
  const { dryRun, maxWaste, allowDamage } = self.opts<Values>();
  const { prune: pruneVault } = await import('../../vault/library.ts');
  const document = await withVault(context, self, ({ vault, opened, index, signal }) =>
    withProgress(context, async (show) => {
      const result = await pruneVault(vault, index(), {
        dryRun: dryRun === true,
        ...(maxWaste === undefined ? {} : { maxWaste }),
        allowDamage: allowDamage === true,
        level: opened.level,
        signal,
        progress: (step, done, total) => show(countUpdate(...words[step], done, total)),
      });
      return pruneDocument(result);
    }),
  );
  context.print(document, () => renderPrune(document));
  const { damaged, withdrawn, no_room: noRoom } = document;
  return damaged.length > 0 || withdrawn.length > 0 || noRoom > 0 ? exitWithWarnings : 0;
}

function pruneDocument(result: PruneResult): PruneDocument {
  const { dryRun, points, deleted, copied, waiting, kept, dead, withdrawn, noRoom, damaged, tidied } = result;
  return {
    ...{ dry_run: dryRun, points, withdrawn },
    deleted: { ...deleted },
    copied: { ...copied },
    waiting: {
      packs: waiting.packs,
      bytes: waiting.bytes,
      writers: waiting.writers.map(participantDocument),
    },
    kept: { ...kept },
    dead: dead.map(participantDocument),
    no_room: noRoom,
    damaged: damaged.map((each) => ({ ...each })),
    leftovers: tidied === undefined ? null : { ...tidied.temporary },
  };
}

function renderPrune(done: PruneDocument): string {
  const would = done.dry_run ? 'would be ' : '';
  const packs = ({ packs: count, bytes }: { packs: number; bytes: number }): string =>
    `${formatBytes(bytes)} in ${count} packs`;
  const entries: [string, string][] = [
    [`${would}deleted`, packs(done.deleted)],
    [`${would}copied`, `${formatBytes(done.copied.bytes)} from packs to be deleted`],
    ['kept', `${packs(done.kept)}, of which ${formatBytes(done.kept.waste)} are unused`],
  ];
  if (done.waiting.packs > 0)
    entries.push([
      'waiting',
      `${packs(done.waiting)}; a later prune deletes them when ${done.waiting.writers.length} writers have ended`,
    ]);
  if ((done.leftovers?.count ?? 0) > 0)
    entries.push(['leftovers', `${done.leftovers!.count} partial files removed`]);
  const lines = [
    ...done.waiting.writers.map((writer) => `waits for ${renderParticipant(writer)}`),
    ...done.dead.map((writer) => `${would}declared stale: ${renderParticipant(writer)}`),
    ...done.withdrawn.map((point) => `${would}removed: point ${point} of a stale writer, which is not whole`),
    ...(done.no_room > 0
      ? [`no room to copy the used data of ${done.no_room} packs: they stay, with their unused data`]
      : []),
    ...done.damaged.map(({ pack, reason }) => `damaged: pack ${pack}: ${printable(reason)}`),
  ];
  return `${renderList(entries)}${lines.map((line) => `${line}\n`).join('')}`;
}
