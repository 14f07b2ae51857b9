import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { readRecords, removeRecord, type SnapshotRecord, snapshotName, writeRecord } from './records.ts';

const job = '7f3c0f0e-98a5-4c4f-8f0a-0123456789ab';
const record: SnapshotRecord = {
  version: 1,
  name: snapshotName(job, 0),
  origin: 'root',
  group: 'vg',
  groupUuid: 'pFi7E95JcPomype3ijltAlVi6nhyn1Cr',
  job,
  at: 1,
};

test('records are read back; files that name no snapshot of ours are skipped', async (t) => {
  const parent = mkdtempSync(join(tmpdir(), 'records-'));
  t.after(() => rmSync(parent, { recursive: true }));
  const directory = join(parent, 'snapshots');
  assert.deepEqual(await readRecords(directory), []);
  await writeRecord(directory, record);
  const other = { ...record, name: snapshotName(job, 1) };
  await writeRecord(directory, other);
  const put = (name: string, content: unknown) =>
    writeFileSync(
      join(directory, `${name}.json`),
      typeof content === 'string' ? content : JSON.stringify(content),
    );
  put('torn', '{"version":1,"na');
  put('home', { ...record, name: 'home' });
  put(snapshotName(job, 2), record);
  put(snapshotName(job, 3), { ...record, name: snapshotName(job, 3), version: 2 });
  const names = (await readRecords(directory)).map(({ name }) => name);
  assert.deepEqual(names.sort(), [record.name, other.name]);
  await removeRecord(directory, record.name);
  await removeRecord(directory, record.name);
  assert.deepEqual(await readRecords(directory), [other]);
});
