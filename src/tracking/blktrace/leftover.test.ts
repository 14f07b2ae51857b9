import assert from 'node:assert/strict';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'node:test';
import { TraceRecords } from './leftover.ts';

test('a trace is ours only if all facts agree', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'leftover-'));
  t.after(() => rmSync(directory, { recursive: true }));
  const records = new TraceRecords(directory);
  const path = join(directory, 'blktrace/8-0.json');
  const folder = directory;
  const message = join(folder, 'msg');
  writeFileSync(message, '');
  assert.equal(await records.earlier('8:0', folder), undefined);
  assert.equal(await records.isMine('8:0', folder), false);

  await records.note('8:0', folder);
  assert.equal(await records.isMine('8:0', folder), true);
  assert.equal(await records.isMine('8:16', folder), false);
  // The process that made the trace is this one, which is alive.
  assert.equal(await records.earlier('8:0', folder), undefined);

  const record = JSON.parse(readFileSync(path, 'utf8')) as { owner: { pid: number; startTime: number } };
  const write = (change: object) => writeFileSync(path, JSON.stringify({ ...record, ...change }));
  write({ owner: { ...record.owner, startTime: record.owner.startTime - 1 } });
  assert.equal(await records.earlier('8:0', folder), 'ours');
  assert.equal(await records.isMine('8:0', folder), false);
  assert.equal(await records.earlier('8:0', undefined), 'ended');
  write({ owner: { ...record.owner, startTime: 1 }, boot: 'another' });
  assert.equal(await records.earlier('8:0', folder), undefined);
  // Process 1 (init) is alive.
  const [, start = ''] = /^.*\) .(?: \S+){18} (\d+)/.exec(readFileSync('/proc/1/stat', 'latin1')) ?? [];
  write({ owner: { pid: 1, startTime: Number(start) } });
  assert.equal(await records.earlier('8:0', folder), undefined);
  // Files of another program are other files.
  write({ owner: { ...record.owner, startTime: 1 } });
  writeFileSync(join(directory, 'in between'), '');
  rmSync(message);
  writeFileSync(message, '');
  assert.equal(await records.earlier('8:0', folder), 'ended');
  write({});
  assert.equal(await records.isMine('8:0', folder), false);
  await records.ended('8:0');
  assert.equal(await records.earlier('8:0', folder), undefined);
  write({ owner: { ...record.owner, startTime: 1 }, running: false });
  assert.equal(await records.earlier('8:0', folder), 'ended');
  writeFileSync(path, 'damaged');
  assert.equal(await records.earlier('8:0', folder), undefined);
});
