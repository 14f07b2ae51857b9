import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { silentLog } from '../base/log.ts';
import { bootId, identifyProcess, machineMilliseconds } from '../linux/process.ts';
import { thawLeftovers } from './leftovers.ts';
import { lineSplitter } from './guard-messages.ts';
import {
  type FreezeRecord,
  listRecords,
  readRecord,
  recordPath,
  removeRecord,
  writeRecord,
} from './freeze-record.ts';

const directory = mkdtempSync(join(tmpdir(), 'record-'));
after(() => rmSync(directory, { recursive: true }));

const record: FreezeRecord = {
  version: 1,
  bootId: 'b',
  guard: { pid: 1, startTime: 2 },
  deadline: 3,
  mounts: [{ path: '/no/such/place', dev: 4 }],
};

test('a record is read as it was written, and can be removed', () => {
  const path = recordPath(directory, 77);
  writeRecord(path, record);
  assert.deepEqual(readRecord(path), record);
  assert.deepEqual(listRecords(directory), [path]);
  removeRecord(path);
  assert.deepEqual(readdirSync(directory), []);
  assert.deepEqual(listRecords(join(directory, 'none')), []);
});

test('a file that is not a record is read as undefined', () => {
  const path = recordPath(directory, 78);
  for (const text of ['', '{', 'null', '[]', '{"version":2}', JSON.stringify({ ...record, guard: 1 })]) {
    writeFileSync(path, text);
    assert.equal(readRecord(path), undefined);
  }
  removeRecord(path);
});

test('records of another boot and of ended guards are removed, records of running guards are kept', async () => {
  const boot = await bootId();
  const self = (await identifyProcess(process.pid))!;
  const deadline = machineMilliseconds() + 60_000;
  writeRecord(recordPath(directory, 1), record);
  writeFileSync(recordPath(directory, 2), 'torn');
  writeRecord(recordPath(directory, 3), { ...record, bootId: boot, guard: { pid: 2 ** 30, startTime: 1 } });
  writeRecord(recordPath(directory, 4), { ...record, bootId: boot, guard: self, deadline });
  assert.deepEqual(await thawLeftovers(directory, silentLog()), {
    thawed: [],
    held: ['/no/such/place'],
    failures: [],
  });
  assert.deepEqual(listRecords(directory), [recordPath(directory, 4)]);
  removeRecord(recordPath(directory, 4));
});

test('lines arrive complete, however the stream is split', () => {
  fc.assert(
    fc.property(fc.array(fc.stringMatching(/^[a-z]{1,9}$/)), fc.array(fc.nat(60)), (lines, cuts) => {
      const stream = lines.map((line) => `${line}\n`).join('');
      const places = [0, ...cuts.filter((cut) => cut < stream.length).sort((a, b) => a - b), stream.length];
      const heard: string[] = [];
      const feed = lineSplitter((line) => heard.push(line));
      for (let i = 1; i < places.length; i++) feed(stream.slice(places[i - 1], places[i]));
      assert.deepEqual(heard, lines);
    }),
  );
});
