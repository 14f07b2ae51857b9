/**
 * The place of each chunk and page: a local table that is derived from the directories of all packs
 * (docs/formats/vault.md, "The index"). It may lag behind the packs and is never ahead of them. Several threads and
 * processes use the file at once, each with its own object of this class. Transactions are short, one per pack. All
 * methods block the thread, for microseconds (lookups) or milliseconds (a pack).
 *
 * It is only a cache: a damaged file is removed and replaced by an empty one. `lookup`, `state` and `isBuiltSince`
 * continue with the new file; all other methods throw VAULT_INDEX_DAMAGED. So "not found" is true of the store only
 * after a refresh, and data is lost only if it is missing after a rebuild from the store (proven.ts).
 *
 * Do not use it while a filesystem is frozen: the file may be on it, and with a write-ahead log even readers write.
 */
import { rmSync, statSync } from 'node:fs';
import type { DatabaseSync, SQLInputValue, SQLOutputValue, StatementSync } from 'node:sqlite';
import { type Clock, systemClock } from '../../base/clock.ts';
import { AgentError } from '../../base/errors.ts';
import type { PackDirectory, PackKind, PartPlace } from '../packs/format.ts';
import { nameText } from '../packs/name-text.ts';
import { packSum, partSum } from './row-sums.ts';
import { AlteredRow, type IndexFileOptions, indexError, isDamage, openIndexFile } from './schema.ts';
import { replaceLock } from './lock.ts';

/** A part and the pack that holds it. */
export interface PartLocation extends PartPlace {
  readonly pack: string;
  readonly kind: PackKind;
}

/** A pack in the index. */
export interface IndexedPack {
  readonly id: string;
  readonly kind: PackKind;
  /** Bytes of the object. */
  readonly size: number;
  readonly parts: number;
  readonly writer: string;
  /** Milliseconds since 1970, by the writer's clock. */
  readonly created: number;
}

export interface IndexStats {
  readonly packs: number;
  readonly parts: number;
  /** Bytes of all packs. */
  readonly bytes: number;
}

export interface IndexOptions {
  /** Memory for pages of the file, in bytes. Default: 8 MiB. */
  readonly cacheBytes?: number;
  /** Also for the work on this index: the refresh, readers, writers. Default: the system's clock. */
  readonly clock?: Clock;
}

const kinds: readonly (PackKind | undefined)[] = [undefined, 'chunks', 'pages'];

const statements = {
  lookup: `SELECT p.id, p.kind, t.offset, t.encoded, t.plain, t.encoding, t.sum FROM parts t
           JOIN packs p ON p.number = t.pack WHERE t.name = ? ORDER BY t.pack`,
  refreshes: `SELECT value FROM meta WHERE key = 'refreshes'`,
  countRefresh: `UPDATE meta SET value = value + 1 WHERE key = 'refreshes'`,
  numberOf: 'SELECT number FROM packs WHERE id = ?',
  addPack: `INSERT INTO packs (id, kind, size, parts, writer, created, entries, sum)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
  addPart: 'INSERT OR IGNORE INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)',
  countDropped: `UPDATE meta SET value = value + coalesce((SELECT parts FROM packs WHERE id = ?), 0)
                 WHERE key = 'dropped'`,
  built: `SELECT value FROM meta WHERE key = 'built'`,
  setBegun: `UPDATE meta SET value = ? WHERE key = 'begun' AND NOT EXISTS (SELECT 1 FROM packs)`,
  // Files of earlier versions have no time of creation; they count as very old.
  setBuilt: `UPDATE meta SET value = coalesce((SELECT value FROM meta WHERE key = 'begun'), 1)
             WHERE key = 'built' AND value = 0`,
  countLoss: `UPDATE meta SET value = value + 1 WHERE key = 'losses'`,
  state: `SELECT group_concat(value, ' ') FROM (SELECT value FROM meta WHERE key IN ('file', 'losses') ORDER BY key)`,
  dropPack: 'DELETE FROM packs WHERE id = ?',
  packs: `SELECT id, kind, size, parts, writer, created, entries, sum, number FROM packs WHERE number > ?
          ORDER BY number LIMIT 256`,
  pack: 'SELECT id, kind, size, parts, writer, created, entries, sum, number FROM packs WHERE id = ?',
  somePacks:
    'SELECT id, kind, size, parts, writer, created, entries, sum FROM packs ORDER BY random() LIMIT ?',
  stats: `SELECT count(*), coalesce(sum(parts), 0), coalesce(sum(size), 0) FROM packs`,
} as const;

type Statements = Readonly<Record<keyof typeof statements, StatementSync>>;

export class ChunkIndex {
  readonly path: string;
  readonly vaultId: string;
  readonly clock: Clock;
  readonly #cacheBytes: number;
  #database: DatabaseSync;
  #inode: number;
  #statements: Statements;
  #generation = 0;

  private constructor(path: string, vaultId: string, options: IndexOptions) {
    this.path = path;
    this.vaultId = vaultId;
    this.clock = options.clock ?? systemClock;
    this.#cacheBytes = options.cacheBytes ?? 8 * 1024 * 1024;
    this.#database = this.#open();
    this.#inode = statSync(path).ino;
    this.#statements = prepare(this.#database);
  }

  /**
   * Opens the file. If it is missing, damaged or of another vault, the index starts empty, like one that lags far
   * behind. Throws FILE_ERROR.
   */
  static open(path: string, vaultId: string, options: IndexOptions = {}): ChunkIndex {
    return new ChunkIndex(path, vaultId, options);
  }

  /** For the refresh, which has a temporary table of its own. */
  get database(): DatabaseSync {
    return this.#database;
  }

  has(name: Uint8Array): boolean {
    return this.lookup(name).length > 0;
  }

  /** Returns whether a pack that is not condemned has the name. */
  hasLive(name: Uint8Array, condemned: ReadonlySet<string>): boolean {
    return this.lookup(name).some(({ pack }) => !condemned.has(pack));
  }

  /** Returns the copies in all packs, oldest pack first. */
  lookup(name: Uint8Array): PartLocation[] {
    return this.#guardTwice(() => rows(this.#statements.lookup, name).map((row) => toLocation(name, row)));
  }

  /** Changes whenever the file is replaced. Data that was prepared on the old file is then useless. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * Returns whether this file was empty at `since` (milliseconds since 1970) or later, and has seen all packs since.
   * The end of the first refresh is not sufficient: an interrupted refresh may have added most packs long before, and
   * rows damaged since then are not added again. A time in the future comes from a clock that was set back.
   */
  isBuiltSince(since: number): boolean {
    const at = this.#guardTwice(() => Number(rows(this.#statements.built)[0]?.[0]));
    return at >= since && at <= this.clock.now();
  }

  /**
   * For `refreshIndex`, when a refresh begins: while the file is empty, all of its future content is newer than now.
   */
  noteBegun(): void {
    this.guard(() => this.#statements.setBegun.run(this.clock.now()));
  }

  /** For `refreshIndex`, when a refresh has ended. */
  noteBuilt(): void {
    this.guard(() => this.#statements.setBuilt.run());
  }

  /** Removes the file and starts an empty one. */
  discard(): void {
    removeIndexFile(this.path, this.#inode);
    this.reopenIfReplaced();
  }

  /**
   * Returns how many refreshes have begun. A writer reads this before it puts a pack and passes it to `addPack`. A
   * pack must not be added after a refresh that missed it, unless its existence was checked again.
   */
  refreshes(): number {
    return this.guard(() => Number(rows(this.#statements.refreshes)[0]?.[0]));
  }

  /** For `refreshIndex`. */
  countRefresh(): void {
    this.guard(() => this.#statements.countRefresh.run());
  }

  /**
   * Adds a pack whose put has returned, in one transaction. Adds nothing and returns false if a refresh began since
   * `refreshes` was read. Leaves a known pack unchanged.
   */
  addPack(directory: PackDirectory, refreshes?: number): boolean {
    return this.#transaction(() => {
      if (refreshes !== undefined && this.refreshes() !== refreshes) return false;
      this.#enter(directory);
      return true;
    });
  }

  /** Adds several packs in one transaction. */
  addPacks(directories: readonly PackDirectory[]): void {
    this.#transaction(() => {
      for (const directory of directories) this.#enter(directory);
    });
  }

  #enter({ id, kind, size, writer, created, parts }: PackDirectory): void {
    const idBytes = Buffer.from(id, 'hex');
    if (this.#statements.numberOf.get(idBytes) !== undefined) return;
    const writerBytes = Buffer.from(writer, 'hex');
    const entries = new Set(parts.map(({ name }) => nameText(name))).size;
    const pack = { id: idBytes, writer: writerBytes, kind, size, created, parts: parts.length, entries };
    const { lastInsertRowid } = this.#statements.addPack.run(
      ...[idBytes, kinds.indexOf(kind), size, parts.length, writerBytes, created, entries, packSum(pack)],
    );
    const { addPart } = this.#statements;
    for (const part of parts) {
      const { name, offset, encodedLength, plainLength, encoding } = part;
      const sum = partSum(name, idBytes, kind, part);
      addPart.run(name, lastInsertRowid, offset, encodedLength, plainLength, encoding, sum);
    }
  }

  /** Drops a pack that is gone, so its parts are no longer found. The next sweep frees the space. */
  dropPack(id: string): void {
    this.#transaction(() => {
      this.#drop(id);
    });
  }

  dropPacks(ids: readonly string[]): void {
    this.#transaction(() => {
      for (const id of ids) this.#drop(id);
    });
  }

  #drop(id: string): void {
    const idBytes = Buffer.from(id, 'hex');
    this.#statements.countDropped.run(idBytes);
    this.#statements.countLoss.run();
    this.#statements.dropPack.run(idBytes);
  }

  /** Yields all packs in the order in which they were added. Concurrent changes may or may not be included. */
  *packs(): Generator<IndexedPack> {
    for (let last: SQLOutputValue | undefined = 0; ;) {
      const batch: { readonly pack: IndexedPack; readonly number: SQLOutputValue | undefined }[] = this.guard(
        () =>
          rows(this.#statements.packs, Number(last)).map((row) => ({ pack: toPack(row), number: row[8] })),
      );
      yield* batch.map(({ pack }) => pack);
      last = batch.at(-1)?.number;
      if (last === undefined) return;
    }
  }

  pack(id: string): IndexedPack | undefined {
    return this.guard(() => rows(this.#statements.pack, Buffer.from(id, 'hex')).map(toPack)[0]);
  }

  /** Returns the number of the pack in the index. It changes if the pack is dropped and added again. */
  numberOf(id: string): number | undefined {
    const number = this.guard(() => rows(this.#statements.numberOf, Buffer.from(id, 'hex'))[0]?.[0]);
    return number === undefined ? undefined : Number(number);
  }

  /** Returns up to `count` random packs. */
  somePacks(count: number): IndexedPack[] {
    return this.guard(() => rows(this.#statements.somePacks, count).map(toPack));
  }

  /**
   * Changes whenever content may have vanished from the index: packs were dropped, or the file is new. While it is
   * unchanged, everything found once is still there.
   */
  get state(): string {
    return this.#guardTwice(() => String(rows(this.#statements.state)[0]?.[0]));
  }

  stats(): IndexStats {
    const [packs, parts, bytes] = this.guard(() => rows(this.#statements.stats))[0] ?? [];
    return { packs: Number(packs), parts: Number(parts), bytes: Number(bytes) };
  }

  /** Switches to the new file if another process replaced a damaged one. */
  reopenIfReplaced(): void {
    if (inodeOf(this.path) === this.#inode) return;
    const database = this.#open();
    this.close();
    this.#generation++;
    this.#database = database;
    this.#inode = statSync(this.path).ino;
    this.#statements = prepare(database);
  }

  #open(): DatabaseSync {
    return openOrReplace(this.path, this.vaultId, { cacheBytes: this.#cacheBytes, now: this.clock.now() });
  }

  close(): void {
    if (this.#database.isOpen) this.#database.close();
  }

  #transaction<T>(work: () => T): T {
    return this.guard(() => {
      this.#database.exec('BEGIN IMMEDIATE');
      try {
        const result = work();
        this.#database.exec('COMMIT');
        return result;
      } catch (error) {
        if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
        throw error;
      }
    });
  }

  /** Reads a value; uses the new, empty file if this one turns out to be damaged. */
  #guardTwice<T>(read: () => T): T {
    try {
      return this.guard(read);
    } catch (error) {
      if (!(error instanceof AgentError && error.code === 'VAULT_INDEX_DAMAGED')) throw error;
      this.reopenIfReplaced();
      return this.guard(read);
    }
  }

  /** Runs work on the database. Removes a damaged file, so that it is not opened again. */
  guard<T>(work: () => T): T {
    try {
      return work();
    } catch (error) {
      if (isDamage(error)) removeIndexFile(this.path, this.#inode);
      throw indexError(this.path, error);
    }
  }
}

function openOrReplace(path: string, vaultId: string, options: IndexFileOptions): DatabaseSync {
  const opened = openIndexFile(path, vaultId, options);
  if (opened !== undefined) return opened;
  const release = replaceLock(path);
  try {
    // Another process may have replaced it in the meantime.
    const again = openIndexFile(path, vaultId, options);
    if (again !== undefined) return again;
    removeFiles(path);
    const fresh = openIndexFile(path, vaultId, options);
    if (fresh === undefined) throw new Error(`${path}: a new index is not readable`);
    return fresh;
  } finally {
    release();
  }
}

/** Other processes may have the file open. They keep using it, and switch to the new file at their next refresh. */
function removeIndexFile(path: string, inode: number): void {
  const release = replaceLock(path);
  try {
    if (inodeOf(path) === inode) removeFiles(path);
  } finally {
    release();
  }
}

/** Removes the main file last: SQLite would use a leftover log for a new file. */
function removeFiles(path: string): void {
  for (const suffix of ['-wal', '-shm', '']) rmSync(`${path}${suffix}`, { force: true, recursive: true });
}

function inodeOf(path: string): number | undefined {
  return statSync(path, { throwIfNoEntry: false })?.ino;
}

function prepare(database: DatabaseSync): Statements {
  const prepared = Object.entries(statements).map(([key, sql]) => {
    const statement = database.prepare(sql);
    statement.setReturnArrays(true);
    return [key, statement];
  });
  return Object.fromEntries(prepared) as Statements;
}

/** Statements return arrays, which the types do not express. */
function rows(statement: StatementSync, ...parameters: SQLInputValue[]): SQLOutputValue[][] {
  return statement.all(...parameters) as unknown as SQLOutputValue[][];
}

/** Throws AlteredRow. */
function toLocation(name: Uint8Array, row: SQLOutputValue[]): PartLocation {
  const [id, kind, offset, encoded, plain, encoding, sum] = row;
  const place = {
    offset: Number(offset),
    encodedLength: Number(encoded),
    plainLength: Number(plain),
    encoding: encoding === 1 ? 1 : 0,
  } as const;
  const packKind = kinds[Number(kind)] ?? 'chunks';
  if (Number(sum) !== partSum(name, bytes(id), packKind, place)) throw new AlteredRow('a part was altered');
  return { pack: hex(id), kind: packKind, ...place };
}

/** Throws AlteredRow. */
function toPack([id, kind, size, parts, writer, created, entries, sum]: SQLOutputValue[]): IndexedPack {
  const pack = {
    kind: kinds[Number(kind)] ?? 'chunks',
    size: Number(size),
    parts: Number(parts),
    created: Number(created),
  } as const;
  const summed = { ...pack, id: bytes(id), writer: bytes(writer), entries: Number(entries) };
  if (Number(sum) !== packSum(summed)) throw new AlteredRow('a pack was altered');
  return { ...pack, id: hex(id), writer: hex(writer) };
}

function bytes(value: SQLOutputValue | undefined): Uint8Array {
  return value instanceof Uint8Array ? value : new Uint8Array(0);
}

function hex(bytes: SQLOutputValue | undefined): string {
  if (!(bytes instanceof Uint8Array)) return '';
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('hex');
}
