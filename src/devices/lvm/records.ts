/**
 * Records of the snapshots that jobs are about to take. Each has a file of its own. The file is durable before the
 * snapshot is taken, and is deleted when the snapshot is removed. So a daemon that starts after a crash knows which
 * snapshots its predecessor left. Each file, `STATE/snapshots/NAME.json`, is one JSON document.
 */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '../../base/durable.ts';
import { makeDirectory, unlessAbsent } from '../../base/files.ts';

export interface SnapshotRecord {
  readonly version: 1;
  /** Name of the snapshot, and name of its volume. */
  readonly name: string;
  readonly origin: string;
  readonly group: string;
  /** Without hyphens. Identifies the group, since its name can be given to another group later. */
  readonly groupUuid: string;
  readonly job: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/** The names of all snapshots of this agent begin with this. The rest is the job's UUID and a number. */
const prefix = 'dattod-';
const namePattern = /^dattod-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-\d+$/;

export function snapshotName(job: string, number: number): string {
  return `${prefix}${job}-${number}`;
}

export function snapshotsDirectory(stateDirectory: string): string {
  return join(stateDirectory, 'snapshots');
}

/** Writes the record. It is durable when the promise resolves. */
export async function writeRecord(directory: string, record: SnapshotRecord): Promise<void> {
  await makeDirectory(directory);
  await replaceFile(pathOf(directory, record.name), `${JSON.stringify(record)}\n`);
}

export async function removeRecord(directory: string, name: string): Promise<void> {
  await rm(pathOf(directory, name), { force: true });
}

/**
 * Reads all records. Skips files that name no snapshot of ours. Throws FILE_ERROR if the directory or a file is
 * unreadable.
 */
export async function readRecords(directory: string): Promise<SnapshotRecord[]> {
  const records: SnapshotRecord[] = [];
  for (const file of (await unlessAbsent(directory, readdir(directory))) ?? []) {
    if (!file.endsWith('.json')) continue;
    const path = join(directory, file);
    const record = parse((await unlessAbsent(path, readFile(path, 'utf8'))) ?? '');
    if (record !== undefined && `${record.name}.json` === file) records.push(record);
  }
  return records;
}

function parse(text: string): SnapshotRecord | undefined {
  try {
    const record = JSON.parse(text) as Partial<SnapshotRecord>;
    const known =
      record.version === 1 &&
      namePattern.test(record.name ?? '') &&
      typeof record.group === 'string' &&
      typeof record.groupUuid === 'string';
    return known ? (record as SnapshotRecord) : undefined;
  } catch {
    return undefined;
  }
}

function pathOf(directory: string, name: string): string {
  return join(directory, `${name}.json`);
}
