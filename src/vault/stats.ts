/** Amounts of data in a vault: used by points, stored in packs, and saved by deduplication and compression. */
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
  /** In bytes, before compression. */
  readonly plainBytes: number;
  /** Bytes in packs. */
  readonly storedBytes: number;
}

export interface VaultStats {
  readonly points: number;
  /** Number of points that cannot be read. */
  readonly damagedPoints: number;
  readonly machines: number;
  /** Devices of all points, and the bytes in use on them. Restoring every point would write that many bytes. */
  readonly images: number;
  readonly usedBytes: number;
  readonly packs: number;
  /** Bytes of all packs. */
  readonly bytes: number;
  readonly chunks: PartStats;
  readonly pages: PartStats;
  /** Number and bytes of packs that are marked for deletion. */
  readonly condemned: { readonly packs: number; readonly bytes: number };
  /** Used bytes of all images per byte of chunks before compression; undefined if there are no chunks. */
  readonly deduplication: number | undefined;
  /** Bytes of chunks before compression per stored byte; undefined if there are no chunks. */
  readonly compression: number | undefined;
}

/** Updates the index and walks over it once. Throws errors of the store and the signal's reason. */
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

/** Runs in 256 slices by the first byte of the name, so that other work is not blocked. */
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
      // 1 is chunks and 2 is pages, as in the packs.
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
