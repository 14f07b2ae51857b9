/**
 * The SQLite file of the index: identity, opening, and error handling. Names are random, so inserts and lookups use
 * any page. Therefore rows are small and the cache has a fixed size. A part takes about 85 bytes. SQLite has no
 * checksums, so every row has its own (row-sums.ts). An altered row is damage and never a place of a chunk.
 *
 * Dropping a pack removes its row in `packs`. Its parts remain until a sweep, because there is no index from packs to
 * parts. They are no longer found, because numbers are never reused.
 */
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { AgentError, errnoCode } from '../../base/errors.ts';
import { freshUuid } from '../../base/random.ts';

/** 'datt', in the file's header. */
const applicationId = 0x64617474;
const schemaVersion = 2;

const schema = `
  CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
  CREATE TABLE packs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL UNIQUE, kind INTEGER NOT NULL,
    size INTEGER NOT NULL, parts INTEGER NOT NULL, writer BLOB NOT NULL, created INTEGER NOT NULL,
    entries INTEGER NOT NULL, sum INTEGER NOT NULL
  );
  CREATE TABLE parts (
    name BLOB NOT NULL, pack INTEGER NOT NULL, offset INTEGER NOT NULL, encoded INTEGER NOT NULL,
    plain INTEGER NOT NULL, encoding INTEGER NOT NULL, sum INTEGER NOT NULL, PRIMARY KEY (name, pack)
  ) WITHOUT ROWID;
`;

/** How long a thread waits for a transaction of another one, in milliseconds. */
const busyMs = 60_000;

export interface IndexFileOptions {
  /** Memory for pages of the file, in bytes. */
  readonly cacheBytes: number;
  /** Milliseconds since 1970: when a new file began. */
  readonly now: number;
}

/**
 * Opens or creates the file. Returns undefined if it is of another vault or version, or not an index; the caller then
 * replaces it. Throws FILE_ERROR.
 */
export function openIndexFile(
  path: string,
  vaultId: string,
  { cacheBytes, now }: IndexFileOptions,
): DatabaseSync | undefined {
  let database: DatabaseSync | undefined;
  try {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
    // SQLite's other files get the permissions of this one.
    closeSync(openSync(path, 'a', 0o600));
    database = new DatabaseSync(path, { timeout: busyMs });
    database.exec(`
      PRAGMA journal_mode = WAL;
      PRAGMA synchronous = NORMAL;
      PRAGMA wal_autocheckpoint = 4000;
      PRAGMA journal_size_limit = 67108864;
      PRAGMA cache_size = ${-Math.ceil(cacheBytes / 1024)};
      PRAGMA cell_size_check = ON;
    `);
    if (prepareSchema(database, vaultId, now)) return database;
    database.close();
    return undefined;
  } catch (error) {
    database?.close();
    // A directory in its place is also not an index.
    if (isDamage(error) || errnoCode(error) === 'EISDIR') return undefined;
    throw indexError(path, error);
  }
}

/** Returns false if the file belongs to another vault or program. */
function prepareSchema(database: DatabaseSync, vaultId: string, now: number): boolean {
  database.exec('BEGIN IMMEDIATE');
  try {
    const fresh = numberOf(database, 'SELECT count(*) AS n FROM sqlite_schema') === 0;
    if (fresh) {
      database.exec(schema);
      database.exec(`PRAGMA application_id = ${applicationId}; PRAGMA user_version = ${schemaVersion};`);
      database
        .prepare(
          `INSERT INTO meta VALUES ('vault', ?), ('refreshes', 0), ('dropped', 0), ('losses', 0), ('built', 0), ('file', ?),
             ('begun', ?)`,
        )
        .run(vaultId, freshUuid(), now);
    }
    const known =
      numberOf(database, 'SELECT application_id AS n FROM pragma_application_id') === applicationId &&
      numberOf(database, 'SELECT user_version AS n FROM pragma_user_version') === schemaVersion &&
      database.prepare(`SELECT value FROM meta WHERE key = 'vault'`).get()?.['value'] === vaultId;
    database.exec('COMMIT');
    return known;
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK');
    throw error;
  }
}

function numberOf(database: DatabaseSync, sql: string): number {
  return Number(database.prepare(sql).get()?.['n']);
}

/** Returns SQLite's primary result code (sqlite3.h); undefined for other errors. */
function resultCode(error: unknown): number | undefined {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : undefined;
  return typeof code === 'number' ? code & 0xff : undefined;
}

/** A row differs from the added row, or rows are missing. */
export class AlteredRow extends Error {
  override readonly name = 'AlteredRow';
}

/** Returns true for SQLITE_CORRUPT, SQLITE_NOTADB and altered rows. */
export function isDamage(error: unknown): boolean {
  return error instanceof AlteredRow || [11, 26].includes(resultCode(error) ?? 0);
}

/** Returns the error to report. Errors that are not from SQLite or the system are returned unchanged. */
export function indexError(path: string, error: unknown): unknown {
  if (isDamage(error))
    return new AgentError('VAULT_INDEX_DAMAGED', `${path}: the index was damaged and has been removed`, {
      hint: 'run the command again: the index is rebuilt from the packs',
      cause: error,
    });
  if (!(error instanceof Error && (resultCode(error) !== undefined || 'errno' in error))) return error;
  return new AgentError('FILE_ERROR', `${path}: ${error.message}`, {
    hint: 'the index of the vault needs free space and write permission in the state directory',
    cause: error,
  });
}
