/** `vault stats`: amounts of data in a vault. */
import type { PartsDocument, StatsDocument } from '../../../api/vault/output/upkeep.ts';
import { Command } from 'commander';
import { formatBytes } from '../../../base/bytes.ts';
import type { PartStats } from '../../../vault/stats.ts';
import type { Context, Run } from '../../context.ts';
import { renderList } from '../../render/table.ts';
import { addVaultOptions } from '../../vault/options.ts';
import { withVault } from '../../vault/session.ts';

export function stats(run: Run): Command {
  return addVaultOptions(
    new Command('stats').description(
      'Shows how much data a vault stores, and the effect of deduplication and compression.',
    ),
  ).action(run(showStats));
}

async function showStats(context: Context, self: Command): Promise<number> {
  const { vaultStats } = await import('../../vault/library.ts');
  const found = await withVault(context, self, ({ vault, index, signal }) =>
    vaultStats(vault, index(), { signal }),
  );
  const document: StatsDocument = {
    points: found.points,
    damaged_points: found.damagedPoints,
    machines: found.machines,
    images: found.images,
    used_bytes: found.usedBytes,
    packs: found.packs,
    bytes: found.bytes,
    chunks: partsDocument(found.chunks),
    pages: partsDocument(found.pages),
    condemned: { ...found.condemned },
    deduplication: found.deduplication ?? null,
    compression: found.compression ?? null,
  };
  context.print(document, () => renderStats(document));
  return 0;
}

function partsDocument({ parts, plainBytes, storedBytes }: PartStats): PartsDocument {
  return { parts, plain_bytes: plainBytes, stored_bytes: storedBytes };
}

function renderStats(stats: StatsDocument): string {
  const parts = ({ parts: count, plain_bytes: plain, stored_bytes: stored }: PartsDocument): string =>
    `${count}, ${formatBytes(plain)}, stored in ${formatBytes(stored)}`;
  const ratio = (value: number | null): string => (value === null ? '-' : `${value.toFixed(2)} to 1`);
  const { damaged_points: damaged, condemned } = stats;
  const entries: [string, string][] = [
    ['points', `${stats.points}${damaged === 0 ? '' : `, and ${damaged} that cannot be read`}`],
    ['machines', String(stats.machines)],
    ['images', `${stats.images}, ${formatBytes(stats.used_bytes)} in use on them`],
    ['packs', `${stats.packs}, ${formatBytes(stats.bytes)}`],
    ['chunks', parts(stats.chunks)],
    ['map pages', parts(stats.pages)],
    ['deduplicated', ratio(stats.deduplication)],
    ['compressed', ratio(stats.compression)],
  ];
  if (condemned.packs > 0)
    entries.push([
      'condemned',
      `${condemned.packs} packs, ${formatBytes(condemned.bytes)}, to be deleted by a later prune`,
    ]);
  return renderList(entries);
}
