/** What is in a vault, in numbers: what points hold, what that takes, and what sharing and compressing save. */
import { setImmediate as turn } from 'node:timers/promises';
import type { ChunkIndex } from './index/chunk-index.ts';
import { refreshIndex } from './index/refresh.ts';
import { tagLength } from './packs/format.ts';
import { listPoints } from './points/points.ts';
import type { StoreOptions } from './store/object-store.ts';
import type { Vault } from './vault.ts';
import { readCondemned } from './writing/condemned.ts';

export interface PartStats {
  readonly parts: number;
  /** Bytes before compression. */
  readonly plainBytes: number;
  /** What they take in packs. */
  readonly storedBytes: number;
}

export interface VaultStats {
  readonly points: number;
  /** Points that cannot be read. */
  readonly damagedPoints: number;
  readonly machines: number;
  /** Devices of all points, and what is in use on them, bytes: what restoring every point would write. */
  readonly images: number;
  readonly usedBytes: number;
  readonly packs: number;
  /** Bytes of all packs. */
  readonly bytes: number;
  readonly chunks: PartStats;
  readonly pages: PartStats;
  /** Packs that are going to be deleted, and their bytes. */
  readonly condemned: { readonly packs: number; readonly bytes: number };
  /** Bytes in use on all images for each byte of chunks before compression; undefined without any. */
  readonly deduplication: number | undefined;
  /** Bytes of chunks before compression for each byte that is stored of them; undefined without any. */
  readonly compression: number | undefined;
}

/** Brings the index up to date, and walks over it once. Throws what the store throws, and the signal's reason. */
export async function vaultStats(
  vault: Vault,
  index: ChunkIndex,
  { signal }: StoreOptions = {},
): Promise<VaultStats> {
  await refreshIndex(vault, index, { signal });
  const { points, damaged } = await listPoints(vault, { signal });
  const devices = points.flatMap((point) => point.devices);
  const usedBytes = devices.reduce((sum, { used_bytes: used }) => sum + used, 0);
  const { chunks, pages } = await partStats(index, signal);
  const { packs, bytes } = index.stats();
  const condemned = [...(await readCondemned(vault, { signal }))].flatMap((id) => index.pack(id) ?? []);
  return {
    points: points.length,
    damagedPoints: damaged.length,
    machines: new Set(points.map(({ machine }) => `${machine.id} ${machine.name}`)).size,
    images: devices.length,
    usedBytes,
    packs,
    bytes,
    chunks,
    pages,
    condemned: { packs: condemned.length, bytes: condemned.reduce((sum, { size }) => sum + size, 0) },
    deduplication: chunks.plainBytes === 0 ? undefined : usedBytes / chunks.plainBytes,
    compression: chunks.storedBytes === 0 ? undefined : chunks.plainBytes / chunks.storedBytes,
  };
}

/** In slices of the first byte of the names, so that others get their turn. */
async function partStats(
  index: ChunkIndex,
  signal: AbortSignal | undefined,
): Promise<{ chunks: PartStats; pages: PartStats }> {
  const select = index.database.prepare(`
    SELECT p.kind AS kind, count(*) AS parts, sum(t.plain) AS plain, sum(t.encoded + ${tagLength}) AS stored
    FROM parts t JOIN packs p ON p.number = t.pack WHERE t.name >= ? AND (? OR t.name < ?) GROUP BY p.kind`);
  const sums = [0, 1].map(() => ({ parts: 0, plainBytes: 0, storedBytes: 0 }));
  for (let first = 0; first < 256; first++) {
    signal?.throwIfAborted();
    const isLast = first === 255;
    const rows = index.guard(() =>
      select.all(Buffer.from([first]), isLast ? 1 : 0, Buffer.from([isLast ? first : first + 1])),
    );
    for (const row of rows) {
      // 1: chunks, 2: pages, as in the packs.
      const sum = sums[Number(row['kind']) - 1];
      if (sum === undefined) continue;
      sum.parts += Number(row['parts']);
      sum.plainBytes += Number(row['plain']);
      sum.storedBytes += Number(row['stored']);
    }
    await turn();
  }
  return { chunks: sums[0]!, pages: sums[1]! };
}
