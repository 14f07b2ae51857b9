/**
 * The SQLite file of the index: which it is, how it is opened, and what SQLite's errors mean. Names are random, so
 * inserts and lookups touch any page: what counts is a small row and a cache of fixed size. Some 85 bytes a part.
 * SQLite has no checksums, so every row has one of its own (row-sums.ts): what was altered is damage, and no place of a
 * chunk.
 *
 * A pack that is dropped takes its row in `packs` with it; its parts stay behind and are not seen any more, since
 * numbers are never used again, until a sweep removes them (no index from packs to parts is kept for that).
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

/** How long a thread waits for another's transaction, milliseconds. */
const busyMs = 60_000;

/**
 * Opens the file or makes it. Undefined where it is of another vault or version, or no such file at all: then it is to be
 * replaced. Throws FILE_ERROR.
 */
export function openIndexFile(path: string, vaultId: string, cacheBytes: number): DatabaseSync | undefined {
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
    if (prepareSchema(database, vaultId)) return database;
    database.close();
    return undefined;
  } catch (error) {
    database?.close();
    // A directory in its place can be no index either.
    if (isDamage(error) || errnoCode(error) === 'EISDIR') return undefined;
    throw indexError(path, error);
  }
}

/** False where the file is another's. */
function prepareSchema(database: DatabaseSync, vaultId: string): boolean {
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
        .run(vaultId, freshUuid(), Date.now());
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

/** SQLite's primary result code (sqlite3.h), or undefined for another error. */
function resultCode(error: unknown): number | undefined {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : undefined;
  return typeof code === 'number' ? code & 0xff : undefined;
}

/** A row is not what was entered, or rows are missing. */
export class AlteredRow extends Error {
  override readonly name = 'AlteredRow';
}

/** SQLITE_CORRUPT and SQLITE_NOTADB, and rows that were altered. */
export function isDamage(error: unknown): boolean {
  return error instanceof AlteredRow || [11, 26].includes(resultCode(error) ?? 0);
}

/** What a person is told. Errors that are not SQLite's or the system's are returned as they are. */
export function indexError(path: string, error: unknown): unknown {
  if (isDamage(error))
    return new AgentError('VAULT_INDEX_DAMAGED', `${path}: the index is damaged and was put away`, {
      hint: 'do it again: the index is built anew from the packs',
      cause: error,
    });
  if (!(error instanceof Error && (resultCode(error) !== undefined || 'errno' in error))) return error;
  return new AgentError('FILE_ERROR', `${path}: ${error.message}`, {
    hint: 'the index of the vault needs room and rights in the state directory',
    cause: error,
  });
}
