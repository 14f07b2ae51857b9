/**
 * The job history: the newest status of every job, in SQLite, so that it survives a restart. Writes are short and
 * synchronous. While a filesystem is frozen (`hold`), writes wait in memory, since the database may lie on it. The
 * database is locked exclusively, so that two daemons never share a state directory. It has no write-ahead log,
 * because the shared memory of that log would have to be written even for reading.
 */
import { DatabaseSync, type StatementSync } from 'node:sqlite';
import { AgentError, systemHints } from '../base/errors.ts';
import type { JobStatus } from '../api/job-status.ts';

export interface HistoryOptions {
  /** How many jobs are kept. */
  readonly limit?: number;
  /** The kernel's boot id, to tell a crash from a restart of the machine. */
  readonly bootId?: string;
  /** Called if a write failed. The status stays in memory, and the next write includes it again. */
  readonly onError?: (error: unknown) => void;
}

const schemaVersion = 1;

export class History {
  readonly #database: DatabaseSync;
  readonly #limit: number;
  readonly #bootId: string;
  readonly #onError: (error: unknown) => void;
  readonly #insert: StatementSync;
  readonly #prune: StatementSync;
  readonly #select: StatementSync;
  readonly #all: StatementSync;
  readonly #uuids: StatementSync;
  /** Statuses that are not written yet: the newest of each job, in order of arrival. */
  readonly #waiting = new Map<string, JobStatus>();
  #holds = 0;

  /** Opens or creates the database. Throws DAEMON_ALREADY_RUNNING if another daemon holds it, or FILE_ERROR. */
  constructor(path: string, options: HistoryOptions = {}) {
    this.#limit = options.limit ?? 1000;
    this.#bootId = options.bootId ?? '';
    this.#onError = options.onError ?? (() => undefined);
    this.#database = openDatabase(path);
    this.#insert = this.#database.prepare(
      `INSERT INTO jobs (uuid, created_at, state, boot_id, status) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (uuid) DO UPDATE SET state = excluded.state, status = excluded.status`,
    );
    this.#prune = this.#database.prepare(
      `DELETE FROM jobs WHERE id IN (SELECT id FROM jobs ORDER BY id DESC LIMIT -1 OFFSET ?)`,
    );
    this.#select = this.#database.prepare('SELECT status FROM jobs WHERE uuid = ?');
    this.#all = this.#database.prepare('SELECT uuid, status FROM jobs ORDER BY id DESC LIMIT ?');
    this.#uuids = this.#database.prepare('SELECT uuid FROM jobs');
  }

  hold(): void {
    this.#holds++;
  }

  release(): void {
    if (this.#holds > 0) this.#holds--;
    if (this.#holds === 0) this.#flush();
  }

  /** Records the newest status of a job. */
  put(status: JobStatus): void {
    this.#waiting.set(status.uuid, status);
    if (this.#holds === 0) this.#flush();
  }

  get(uuid: string): JobStatus | undefined {
    return this.#waiting.get(uuid) ?? statusOf(this.#select.get(uuid));
  }

  /** Returns the statuses of at most `limit` jobs, the newest job first. */
  list(limit = this.#limit): JobStatus[] {
    const written = this.#all.all(limit);
    const found = new Map(written.map((row) => [String(row['uuid']), statusOf(row)!]));
    const fresh = [...this.#waiting.values()].filter((status) => !found.has(status.uuid)).toReversed();
    const rest = [...found.values()].map((status) => this.#waiting.get(status.uuid) ?? status);
    return [...fresh, ...rest].slice(0, limit);
  }

  /** Returns the UUIDs of all jobs, in no order. */
  uuids(): string[] {
    const written = this.#uuids.all().map((row) => String(row['uuid']));
    return [...new Set([...written, ...this.#waiting.keys()])];
  }

  /**
   * Marks jobs that an earlier daemon left unfinished as FAILED, with the reason. Returns them. Call once, before any
   * job starts.
   *
   * If a backed-up filesystem holds this history, its image shows the job that made the image as `freezing`: the
   * daemon records that right before the freeze (daemon.ts). On a machine restored from the image, such a job is
   * UNKNOWN.
   */
  failInterrupted(now: Date): JobStatus[] {
    const rows = this.#database
      .prepare(`SELECT boot_id, status FROM jobs WHERE state IN ('NOT_STARTED', 'IN_PROGRESS') ORDER BY id`)
      .all();
    return rows.map((row) => {
      const restarted = this.#bootId !== '' && row['boot_id'] !== this.#bootId;
      const status = statusOf(row)!;
      const atFreeze = restarted && status.phase === 'freezing';
      const failed: JobStatus = {
        ...status,
        state: atFreeze ? 'UNKNOWN' : 'FAILED',
        paused: false,
        rate: 0,
        seconds_left: null,
        finished_at: now.toISOString(),
        error: {
          code: 'JOB_INTERRUPTED',
          message: atFreeze
            ? 'How this job ended is not known here: the machine was restored from what the job made, or restarted in its freeze'
            : restarted
              ? `The machine was restarted during the job (phase: ${status.phase})`
              : `dattod was killed or crashed during the job (phase: ${status.phase})`,
          hint: atFreeze
            ? "look at the target ('dattocli points'), or start the backup again"
            : 'start the backup again; the image is not complete until one succeeds',
        },
      };
      this.put(failed);
      return failed;
    });
  }

  /** Writes the statuses that wait, even while writes are held, and closes the database. */
  close(): void {
    this.#flush();
    this.#database.close();
  }

  #flush(): void {
    // A job that did not end in time may still report after the database was closed.
    if (this.#waiting.size === 0 || !this.#database.isOpen) return;
    try {
      this.#database.exec('BEGIN');
      for (const status of this.#waiting.values())
        this.#insert.run(status.uuid, status.created_at, status.state, this.#bootId, JSON.stringify(status));
      this.#prune.run(this.#limit);
      this.#database.exec('COMMIT');
      this.#waiting.clear();
    } catch (error) {
      if (this.#database.isTransaction) this.#database.exec('ROLLBACK');
      this.#onError(error);
    }
  }
}

function statusOf(row: Record<string, unknown> | undefined): JobStatus | undefined {
  return row === undefined ? undefined : (JSON.parse(String(row['status'])) as JobStatus);
}

function openDatabase(path: string): DatabaseSync {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path);
    // The first transaction takes the lock. `locking_mode` keeps it for as long as the database is open.
    database.exec('PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = DELETE; BEGIN EXCLUSIVE');
    const version = Number(database.prepare('PRAGMA user_version').get()?.['user_version'] ?? 0);
    if (version > schemaVersion)
      throw new AgentError(
        'FILE_ERROR',
        `The job history ${path} has version ${version}, this dattod knows ${schemaVersion}`,
        { hint: 'run the newer dattod, or move the file away' },
      );
    database.exec(`
      CREATE TABLE IF NOT EXISTS jobs (
        id INTEGER PRIMARY KEY,
        uuid TEXT NOT NULL UNIQUE,
        created_at TEXT NOT NULL,
        state TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        status TEXT NOT NULL
      );
      PRAGMA user_version = ${schemaVersion};
      COMMIT`);
    return database;
  } catch (error) {
    database?.close();
    if (error instanceof AgentError) throw error;
    const message = error instanceof Error ? error.message : String(error);
    if (message.includes('locked'))
      throw new AgentError('DAEMON_ALREADY_RUNNING', `Another dattod uses the job history ${path}`, {
        hint: 'give this one its own --state-dir',
        cause: error,
      });
    throw new AgentError('FILE_ERROR', `The job history ${path} cannot be used: ${message}`, {
      hint: hints[resultCode(error)] ?? 'move the file away to begin a new one',
      cause: error,
    });
  }
}

/** Hints by SQLite's primary result code (sqlite3.h): READONLY, IOERR, FULL, CANTOPEN. */
const hints: Readonly<Record<number, string>> = {
  8: systemHints['EROFS']!,
  10: systemHints['EIO']!,
  13: systemHints['ENOSPC']!,
  14: 'see that the state directory is there and can be written',
};

/** Returns SQLite's primary result code, or 0 if the error is not from SQLite. */
function resultCode(error: unknown): number {
  const code = error instanceof Error && 'errcode' in error ? error.errcode : undefined;
  return typeof code === 'number' ? code & 0xff : 0;
}
