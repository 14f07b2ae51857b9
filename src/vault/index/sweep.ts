/**
 * Removes the parts of dropped packs from the index when there are many: one walk over the whole file in small
 * transactions that let other work run in between.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { ChunkIndex } from './chunk-index.ts';

/** Approximate number of rows per transaction. */
const sliceRows = 20_000;

/** Does nothing if dropped parts are less than a fifth of the others, or fewer than `least`. */
export async function sweep(index: ChunkIndex, signal?: AbortSignal, least = 10_000): Promise<void> {
  const dropped = droppedParts(index);
  const { parts } = index.stats();
  if (dropped < Math.max(least, parts / 5)) return;
  // Names are evenly distributed, so their first four bytes divide the file into slices.
  const slices = Math.min(2 ** 31, Math.ceil((parts + dropped) / sliceRows));
  for (let slice = 0; slice < slices; slice++) {
    signal?.throwIfAborted();
    index.guard(() =>
      index.database
        .prepare(
          `DELETE FROM parts WHERE name >= ? AND (? OR name < ?) AND pack NOT IN (SELECT number FROM packs)`,
        )
        .run(border(slice, slices), slice === slices - 1 ? 1 : 0, border(slice + 1, slices)),
    );
    await turn();
  }
  index.guard(() =>
    index.database.prepare(`UPDATE meta SET value = value - ? WHERE key = 'dropped'`).run(dropped),
  );
}

function droppedParts(index: ChunkIndex): number {
  return index.guard(() =>
    Number(index.database.prepare(`SELECT value AS n FROM meta WHERE key = 'dropped'`).get()?.['n']),
  );
}

function border(slice: number, slices: number): Buffer {
  const name = Buffer.alloc(4);
  name.writeUInt32BE(Math.min(0xffff_ffff, Math.floor((slice / slices) * 2 ** 32)));
  return name;
}
