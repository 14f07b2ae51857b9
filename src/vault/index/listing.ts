/**
 * Compares a listing of the packs with the index, for the refresh. It uses a temporary SQLite table, because a vault
 * of 10 TiB has 640,000 packs.
 */
import type { ChunkIndex } from './chunk-index.ts';

export interface ListedPack {
  readonly id: string;
  /** In bytes. */
  readonly size: number;
}

/** The same pack with the same size. Packs never change, so a pack of another size was damaged. */
const known = `EXISTS (SELECT 1 FROM packs WHERE packs.id = listed.id AND packs.size = listed.size)`;
const listedStill = `EXISTS (SELECT 1 FROM listed WHERE listed.id = packs.id AND listed.size = packs.size)`;

export class Listing {
  readonly #index: ChunkIndex;
  /** Packs that writers of this machine add later are newer than the listing. */
  readonly #last: number;

  /** Create it before the listing begins. */
  constructor(index: ChunkIndex) {
    this.#index = index;
    this.#last = index.guard(() => {
      index.database.exec(`
        DROP TABLE IF EXISTS temp.listed;
        CREATE TEMP TABLE listed (id BLOB PRIMARY KEY, size INTEGER NOT NULL) WITHOUT ROWID;
      `);
      return this.#number('SELECT coalesce(max(number), 0) AS n FROM packs');
    });
  }

  add(packs: readonly ListedPack[]): void {
    const { database } = this.#index;
    this.#index.guard(() => {
      const insert = database.prepare('INSERT OR REPLACE INTO temp.listed VALUES (?, ?)');
      database.exec('BEGIN');
      for (const { id, size } of packs) insert.run(Buffer.from(id, 'hex'), size);
      database.exec('COMMIT');
    });
  }

  countNew(): number {
    return this.#index.guard(() =>
      this.#number(`SELECT count(*) AS n FROM temp.listed AS listed WHERE NOT ${known}`),
    );
  }

  /** Yields packs that the index does not have, in batches. Others may be added in the meantime. */
  *newPacks(batch: number): Generator<ListedPack[]> {
    const select = this.#index.database.prepare(
      `SELECT id, size FROM temp.listed AS listed WHERE id > ? AND NOT ${known} ORDER BY id LIMIT ${batch}`,
    );
    for (let last = ''; ;) {
      const packs = this.#index.guard(() =>
        select
          .all(Buffer.from(last, 'hex'))
          .map((row) => ({ id: hex(row['id']), size: Number(row['size']) })),
      );
      if (packs.length === 0) return;
      yield packs;
      last = packs.at(-1)!.id;
    }
  }

  /** Yields packs that were in the index before the listing began and are not in the listing. */
  *gonePacks(batch: number): Generator<string[]> {
    const select = this.#index.database.prepare(
      `SELECT id FROM packs WHERE number <= ? AND NOT ${listedStill} ORDER BY number LIMIT ${batch}`,
    );
    for (;;) {
      const packs = this.#index.guard(() => select.all(this.#last).map((row) => hex(row['id'])));
      if (packs.length === 0) return;
      yield packs;
    }
  }

  close(): void {
    this.#index.database.exec('DROP TABLE IF EXISTS temp.listed');
  }

  #number(sql: string): number {
    return Number(this.#index.database.prepare(sql).get()?.['n']);
  }
}

function hex(value: unknown): string {
  return Buffer.from(value as Uint8Array).toString('hex');
}
