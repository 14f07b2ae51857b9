import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { entryOfDetached } from './detached.ts';
import type { RebootRecord, RecordedDevice } from './shutdown-record.ts';

const size = 64 * 4096;

function map(blocks: readonly number[]): Bitmap {
  const bitmap = new Bitmap(size, 4096);
  for (const block of blocks) bitmap.mark(block * 4096, 4096);
  return bitmap;
}

function entryOf(epoch: string, blocks: readonly number[], path = '/dev/dm-1'): RecordedDevice {
  return {
    ...{ path, uuid: epoch, size, partitionStart: 0, identity: 'dm/uuid LVM-x', signs: {} },
    ...{ epoch: { id: epoch, since: 1 }, generation: 'aa', dirty: map(blocks) },
  };
}

function recordOf(devices: RecordedDevice[], leftOut: RebootRecord['leftOut'] = []): RebootRecord {
  return { bootId: 'boot', at: 1, devices, leftOut };
}

/** Returns why there is no entry; empty if there is one. */
function whyNot(found: RecordedDevice | string): string {
  return typeof found === 'string' ? found : '';
}

const remains = {
  ...{ epoch: { id: 'e', since: 1 }, generation: 'aa', lost: undefined, dirty: map([3, 4]) },
};

test('a detached device keeps its entry if nothing was written since, in any record', () => {
  const blocks = fc.uniqueArray(fc.nat(63), { maxLength: 20 });
  fc.assert(
    fc.property(blocks, blocks, (before, later) => {
      const entry = entryOf('e', before);
      const earlier = recordOf([entryOf('another', later), entry]);
      const found = entryOfDetached(earlier, { ...remains, dirty: map([...before, ...later]) });
      const isNew = later.some((block) => !before.includes(block));
      if (isNew) assert.match(whyNot(found), /written after it was recorded and before it was detached$/);
      else assert.equal(found, entry);
      // A write that was under way when the entry was made, and never ended, is in the entry alone.
      assert.equal(entryOfDetached(earlier, { ...remains, dirty: map(before.slice(1)) }), entry);
    }),
  );
});

test('an entry of a detached device does not count if the map proves nothing, and the reason says why', () => {
  const earlier = recordOf([entryOf('e', [3, 4])]);
  const cases: [RebootRecord | undefined, Partial<typeof remains> | { lost: string }, RegExp][] = [
    [earlier, { lost: 'writes on their way could not be remembered: 1' }, /^writes on their way/],
    [earlier, { generation: 'bb' }, /taken after it was recorded$/],
    [
      earlier,
      { epoch: { id: 'of another device with the same number', since: 1 } },
      /^it was detached before/,
    ],
    [earlier, { dirty: new Bitmap(size, 8192) }, /recorded with 262144 bytes in units of 4096, and its map/],
    [undefined, {}, /^it was detached before it could be recorded$/],
  ];
  for (const [record, more, why] of cases)
    assert.match(whyNot(entryOfDetached(record, { ...remains, ...more })), why);
});

test('a device that was left out before it was detached keeps that reason', () => {
  const why = 'it was still mounted for writing at /srv';
  const left = [
    { path: '/dev/dm-2', uuid: 'u', why: 'of a record of an older version' },
    { path: '/dev/dm-1', uuid: 'u', epoch: 'e', why },
  ];
  assert.equal(entryOfDetached(recordOf([], left), remains), why);
});
