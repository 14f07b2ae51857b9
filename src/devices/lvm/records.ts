/**
 * Records of the snapshots that jobs are about to take: a file for each, durable before it is taken and gone when it is
 * removed, so that a daemon that starts after a crash knows what its predecessor left. One JSON document a file,
 * `STATE/snapshots/NAME.json`.
 */
import { readdir, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { replaceFile } from '../../base/durable.ts';
import { makeDirectory, unlessAbsent } from '../../base/files.ts';

export interface SnapshotRecord {
  readonly version: 1;
  /** Of the snapshot, and of the volume that it is of. */
  readonly name: string;
  readonly origin: string;
  readonly group: string;
  /** Without hyphens: names of groups can be given away again. */
  readonly groupUuid: string;
  readonly job: string;
  /** Milliseconds since 1970. */
  readonly at: number;
}

/** What the names of all snapshots of this agent begin with; the rest is the job's UUID and a number. */
const prefix = 'dattod-';
const namePattern = /^dattod-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}-\d+$/;

export function snapshotName(job: string, number: number): string {
  return `${prefix}${job}-${number}`;
}

export function snapshotsDirectory(stateDirectory: string): string {
  return join(stateDirectory, 'snapshots');
}

/** Durable when it resolves. */
export async function writeRecord(directory: string, record: SnapshotRecord): Promise<void> {
  await makeDirectory(directory);
  await replaceFile(pathOf(directory, record.name), `${JSON.stringify(record)}\n`);
}

export async function removeRecord(directory: string, name: string): Promise<void> {
  await rm(pathOf(directory, name), { force: true });
}

/** What names nothing of ours is left out. Throws FILE_ERROR if the directory or a file cannot be read. */
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
