/**
 * Proves that a device for the record of a shutdown is written only if it was prepared for that. A device
 * that holds anything else cannot be prepared. A record can be marked as used and removed. Needs root,
 * e2fsprogs.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';
import { Bitmap } from '../../src/base/bitmap.ts';
import { MiB } from '../../src/base/bytes.ts';
import {
  markRecordUsed,
  prepareRecordDevice,
  readRecord,
  removeRecord,
  writeRecord,
} from '../../src/tracking/reboot/place.ts';
import {
  decodeRecord,
  encodeNothing,
  encodeRecord,
  usedBy,
} from '../../src/tracking/reboot/shutdown-record.ts';
import { makeLoop } from '../helpers/loop.ts';

function recordFor(size: number): Buffer {
  const dirty = new Bitmap(size, 4096);
  // The map is random, so that it is as long as such a map can be.
  dirty.load(randomBytes(dirty.content.length));
  const device = {
    ...{ path: '/dev/x', uuid: 'u', size, partitionStart: 0, identity: '', signs: { sign: '1' } },
    ...{ epoch: { id: 'e', since: 1 }, dirty },
  };
  return encodeRecord({ bootId: 'b', at: 1, devices: [device], leftOut: [] });
}

test('a device holds a record until it is removed', async (t) => {
  const disk = await makeLoop(t, { size: 2 * MiB });
  await prepareRecordDevice(disk.device);
  assert.equal(await readRecord(disk.device), undefined);
  const record = recordFor(8192 * MiB);
  for (let round = 0; round < 2; round++) {
    await writeRecord(disk.device, record);
    await writeRecord(disk.device, record);
    const found = await readRecord(disk.device);
    assert.ok(found !== undefined && found.equals(record));
    await markRecordUsed(disk.device, found, '01234567-89ab-4cde-8f01-23456789abcd');
    const marked = await readRecord(disk.device);
    assert.ok(marked !== undefined && marked.subarray(64).equals(record.subarray(64)));
    assert.equal(usedBy(marked), '01234567-89ab-4cde-8f01-23456789abcd');
    assert.ok(typeof decodeRecord(marked) === 'object');
    await removeRecord(disk.device);
    assert.equal(await readRecord(disk.device), undefined);
  }
  // A device that holds a record may be prepared again. If a record is too long, the previous one stays; the
  // signs of life then decide whether it is used.
  await writeRecord(disk.device, record);
  await prepareRecordDevice(disk.device);
  assert.equal(await readRecord(disk.device), undefined);
  await writeRecord(disk.device, record);
  await assert.rejects(writeRecord(disk.device, recordFor(65536 * MiB)), {
    code: 'FILE_ERROR',
    message: /has 2097152 bytes, and the record needs/,
  });
  assert.ok((await readRecord(disk.device))?.equals(record));
});

test('no other device is ever written', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4' });
  const before = await readFile(disk.image);
  await assert.rejects(writeRecord(disk.device, encodeNothing()), {
    code: 'FILE_ERROR',
    message: /no place/,
  });
  await assert.rejects(readRecord(disk.device), { code: 'FILE_ERROR', message: /no place for records/ });
  await assert.rejects(removeRecord(disk.device), { code: 'FILE_ERROR', message: /no place for records/ });
  await assert.rejects(prepareRecordDevice(disk.device), { code: 'DEVICE_BUSY', message: /hold something/ });
  assert.ok((await readFile(disk.image)).equals(before));
  const mounted = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
  await assert.rejects(writeRecord(mounted.device, encodeNothing()), { message: /EBUSY/ });
  await assert.rejects(prepareRecordDevice(mounted.device), /EBUSY/);
});
