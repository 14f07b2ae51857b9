/**
 * What a list of the packs showed, held against the index: in a temporary table of SQLite's, since a vault of 10 TiB has
 * 640,000 packs. For the refresh.
 */
import type { ChunkIndex } from './chunk-index.ts';

export interface ListedPack {
  readonly id: string;
  /** Bytes. */
  readonly size: number;
}

/** The same pack: its size too. A pack is never changed, so one of another size was damaged. */
const known = `EXISTS (SELECT 1 FROM packs WHERE packs.id = listed.id AND packs.size = listed.size)`;
const listedStill = `EXISTS (SELECT 1 FROM listed WHERE listed.id = packs.id AND listed.size = packs.size)`;

export class Listing {
  readonly #index: ChunkIndex;
  /** Packs that were entered later, by writers of this machine, are newer than the list. */
  readonly #last: number;

  /** To be made before the list begins. */
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

  /** Packs that the index does not know, in batches; others may be entered meanwhile. */
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

  /** Packs that were in the index before the list began and are not in the list. */
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
