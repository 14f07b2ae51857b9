/**
 * The record of frozen filesystems: a small file in the run directory, written before the freeze and removed after the
 * thaw. If both the agent and its guard are killed, the next daemon thaws the filesystems of the record. It is written
 * to a temporary name and renamed. All calls are synchronous, because the directory is on a tmpfs.
 */
import { readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from '../base/errors.ts';
import { writing } from '../base/files.ts';
import type { ProcessIdentity } from '../linux/process.ts';

export interface FreezeRecord {
  readonly version: 1;
  /** A record of an earlier boot is invalid: nothing stays frozen across a boot. */
  readonly bootId: string;
  readonly guard: ProcessIdentity;
  /** CLOCK_MONOTONIC in milliseconds after which the guard must not hold anything frozen. */
  readonly deadline: number;
  /** The mounts in the order of freezing. */
  readonly mounts: readonly RecordedMount[];
}

export interface RecordedMount {
  readonly path: string;
  /** Device number of the filesystem (st_dev). It shows if the path now leads to another filesystem. */
  readonly dev: number;
}

const pattern = /^freeze-\d+\.json$/;

export function recordPath(runDirectory: string, guardPid: number): string {
  return join(runDirectory, `freeze-${guardPid}.json`);
}

/** Throws FILE_ERROR. */
export function writeRecord(path: string, record: FreezeRecord): void {
  const temporary = `${path}.new`;
  writing(path, () => {
    try {
      writeFileSync(temporary, JSON.stringify(record), { mode: 0o600 });
      renameSync(temporary, path);
    } catch (thrown) {
      rmSync(temporary, { force: true });
      throw thrown;
    }
  });
}

export function removeRecord(path: string): void {
  rmSync(path, { force: true });
  rmSync(`${path}.new`, { force: true });
}

/** Returns undefined if there is no record or it is invalid. Throws if it cannot be read. */
export function readRecord(path: string): FreezeRecord | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return undefined;
    throw thrown;
  }
  return parseRecord(text);
}

function parseRecord(text: string): FreezeRecord | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Returns the paths of all records in the directory. */
export function listRecords(runDirectory: string): string[] {
  try {
    return readdirSync(runDirectory)
      .filter((name) => pattern.test(name))
      .map((name) => join(runDirectory, name));
  } catch (thrown) {
    if (errnoCode(thrown) === 'ENOENT') return [];
    throw thrown;
  }
}

function isRecord(value: unknown): value is FreezeRecord {
  if (!isObject(value) || value['version'] !== 1 || typeof value['bootId'] !== 'string') return false;
  const { guard, mounts, deadline } = value;
  return (
    typeof deadline === 'number' &&
    isObject(guard) &&
    typeof guard['pid'] === 'number' &&
    typeof guard['startTime'] === 'number' &&
    Array.isArray(mounts) &&
    mounts.every(
      (mount: unknown) =>
        isObject(mount) && typeof mount['path'] === 'string' && typeof mount['dev'] === 'number',
    )
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}
