import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { markRecordUsed, readRecord, removeRecord, writeRecord } from './place.ts';
import {
  decodeRecord,
  encodeNothing,
  encodeRecord,
  recordLength,
  type RebootRecord,
  usedBy,
} from './shutdown-record.ts';

function recordOf(marks: readonly (readonly [offset: number, length: number])[], size: number): RebootRecord {
  const dirty = new Bitmap(size, 4096);
  for (const [offset, length] of marks) dirty.mark(offset, length);
  return {
    bootId: 'boot-one',
    at: 1_800_000_000_000,
    leftOut: [{ path: '/dev/sdb', uuid: 'b', why: 'it was still mounted for writing at /' }],
    devices: [
      {
        ...{ path: '/dev/sda1', uuid: 'a', size, partitionStart: 1 << 20, identity: 'wwid x' },
        signs: { 'mount count': '7' },
        epoch: { id: 'epoch', since: 5 },
        dirty,
      },
    ],
  };
}

const example = recordOf([[8192, 4096]], 64 * 1024 * 1024);

test('a record is read as it was written', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.nat(1_000_000), fc.nat(100_000)), { maxLength: 20 }),
      fc.integer({ min: 1, max: 1_200_000 }),
      (marks, size) => {
        const record = recordOf(marks, size);
        const again = decodeRecord(encodeRecord(record));
        assert.ok(typeof again === 'object');
        const plain = ({ devices, ...rest }: RebootRecord) => ({
          ...rest,
          devices: devices.map(({ dirty, ...device }) => ({ ...device, dirty: [...dirty.extents()] })),
        });
        assert.deepEqual(plain(again), plain(record));
      },
    ),
  );
});

function refusal(bytes: Buffer): string {
  const found = decodeRecord(bytes);
  return typeof found === 'string' ? found : '';
}

test('a damaged, truncated or foreign record is not used, and the reason says why', () => {
  const bytes = encodeRecord(example);
  for (let at = 0; at < bytes.length; at++) {
    const damaged = Buffer.from(bytes);
    damaged[at]! ^= 0x10;
    assert.equal(typeof decodeRecord(damaged), 'string', `byte ${at}`);
  }
  assert.match(refusal(bytes.subarray(0, -1)), /bytes of/);
  assert.match(refusal(Buffer.alloc(100)), /does not begin/);
  assert.equal(decodeRecord(encodeNothing()), undefined);
  assert.equal(recordLength(bytes), bytes.length);
});

test('a record can be read many times, marked as used, and removed', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'reboot-record-'));
  try {
    const place = join(directory, 'deeper', 'record');
    assert.equal(await readRecord(place), undefined);
    await removeRecord(place);
    await writeRecord(place, encodeRecord(example));
    await writeRecord(place, encodeRecord({ ...example, bootId: 'boot-two' }));
    const bytes = await readRecord(place);
    assert.ok(bytes !== undefined);
    assert.equal(usedBy(bytes), undefined);
    const boot = '01234567-89ab-4cde-8f01-23456789abcd';
    await markRecordUsed(place, bytes, boot);
    const marked = await readRecord(place);
    assert.ok(marked !== undefined);
    assert.equal(usedBy(marked), boot);
    const record = decodeRecord(marked);
    assert.ok(typeof record === 'object');
    assert.equal(record.bootId, 'boot-two');
    await removeRecord(place);
    assert.equal(await readRecord(place), undefined);
    await assert.rejects(writeRecord('/dev/no-such-place', encodeNothing()), { code: 'FILE_ERROR' });
    await assert.rejects(readRecord('/dev/no-such-place', { waitMs: 1 }), { code: 'FILE_ERROR' });
    assert.deepEqual(readdirSync(join(directory, 'deeper')), []);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
