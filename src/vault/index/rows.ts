/**
 * Verifies the rows of the index: the checksum of each row, and that no row of a pack is missing. A lookup cannot do
 * this: it does not notice rows that have vanished from the file.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { ChunkIndex, IndexedPack } from './chunk-index.ts';
import { isIndexDamage } from './damaged.ts';
import { partSum } from './row-sums.ts';
import { AlteredRow } from './schema.ts';

/** A row of the table `parts`. */
export interface PartRow {
  readonly name: Uint8Array;
  /** Number of the pack in the index. */
  readonly pack: number;
  readonly offset: number;
  readonly encoded: number;
  readonly plain: number;
  readonly encoding: number;
  readonly sum: number;
}

const sliceRows = 4096;
const columns = 'name, pack, offset, encoded, plain, encoding, sum';

/** Yields all rows by name. Rows of one name are in one slice. */
export function* rowSlices(index: ChunkIndex): Generator<PartRow[]> {
  const select = index.database.prepare(
    `SELECT ${columns} FROM parts WHERE name > ? ORDER BY name, pack LIMIT ${sliceRows}`,
  );
  const rest = index.database.prepare(
    `SELECT ${columns} FROM parts WHERE name = ? AND pack > ? ORDER BY pack`,
  );
  for (let last: Uint8Array = new Uint8Array(0); ;) {
    const rows = index.guard(() => select.all(last)) as unknown as PartRow[];
    const final = rows.at(-1);
    if (final === undefined) return;
    if (rows.length === sliceRows)
      rows.push(...(index.guard(() => rest.all(final.name, final.pack)) as unknown as PartRow[]));
    yield rows;
    last = final.name;
  }
}

/** The packs of the index at one moment, and which of their rows a walk has seen. */
export class RowCheck {
  /** By slot. */
  readonly packs: IndexedPack[] = [];
  readonly #index: ChunkIndex;
  readonly #slots = new Map<number, number>();
  readonly #numbers: number[] = [];
  /** Number of rows not seen yet. */
  readonly #unseen: number[] = [];

  constructor(index: ChunkIndex) {
    this.#index = index;
    const select = index.database.prepare('SELECT number, id, entries FROM packs');
    const found = new Map(
      index
        .guard(() => select.all())
        .map((row) => [hex(row['id']), { number: Number(row['number']), entries: Number(row['entries']) }]),
    );
    for (const pack of index.packs()) {
      const { number, entries } = found.get(pack.id) ?? {};
      if (number === undefined) continue;
      this.#slots.set(number, this.packs.length);
      this.#numbers.push(number);
      this.#unseen.push(entries!);
      this.packs.push(pack);
    }
  }

  /** Returns the place in `packs` of the pack with this number; undefined for packs that are newer or gone. */
  slotOf(number: number): number | undefined {
    return this.#slots.get(number);
  }

  /** Throws VAULT_INDEX_DAMAGED. Ignores rows of packs that are newer or gone. */
  see(row: PartRow): void {
    const slot = this.#slots.get(row.pack);
    if (slot === undefined) return;
    const { id, kind } = this.packs[slot]!;
    const place = {
      offset: row.offset,
      encodedLength: row.encoded,
      plainLength: row.plain,
      encoding: row.encoding === 1 ? 1 : 0,
    } as const;
    const sum = partSum(row.name, Buffer.from(id, 'hex'), kind, place);
    this.#index.guard(() => {
      if (row.sum !== sum) throw new AlteredRow('a part was altered');
    });
    this.#unseen[slot]!--;
  }

  /** Throws VAULT_INDEX_DAMAGED. Packs that were dropped in the meantime may have lost their rows. */
  expectAllSeen(): void {
    const lacking = this.#unseen.findIndex(
      (count, slot) => count !== 0 && this.#index.numberOf(this.packs[slot]!.id) === this.#numbers[slot],
    );
    this.#index.guard(() => {
      if (lacking >= 0) throw new AlteredRow('parts of a pack are missing');
    });
  }
}

/**
 * Returns whether the index has all rows of its packs, unaltered, in the file of this generation. If not, the index
 * must be rebuilt. Reads all rows, so the time depends on the size of the vault: about a second per million chunks.
 */
export async function isIntact(
  index: ChunkIndex,
  generation: number,
  signal?: AbortSignal,
): Promise<boolean> {
  if (index.generation !== generation) return false;
  try {
    const check = new RowCheck(index);
    for (const rows of rowSlices(index)) {
      for (const row of rows) check.see(row);
      await turn();
      signal?.throwIfAborted();
      // Other work of this thread may have found damage and replaced the file.
      if (index.generation !== generation) return false;
    }
    check.expectAllSeen();
    return true;
  } catch (error) {
    if (!isIndexDamage(error)) throw error;
    index.reopenIfReplaced();
    return false;
  }
}

function hex(value: unknown): string {
  return Buffer.from(value as Uint8Array).toString('hex');
}
