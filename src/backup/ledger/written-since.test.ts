import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Bitmap } from '../../base/bitmap.ts';
import { WrittenSince } from './written-since.ts';

const size = 1024 * 1024;

function dirty(...places: readonly number[]): Bitmap {
  const bitmap = new Bitmap(size, 4096);
  for (const place of places) bitmap.mark(place, 1);
  return bitmap;
}

test('a reading gets the blocks taken since the previous reading began, and none older', () => {
  const since = new WrittenSince(size);
  since.add(dirty(0));
  assert.equal(since.begin(), undefined, 'there was no reading before');
  assert.equal(since.begin()?.isEmpty(), true);
  since.add(dirty(4096));
  since.add(dirty(8192));
  assert.deepEqual([...since.begin()!.extents()], [{ offset: 4096, length: 8192 }]);
  assert.equal(since.begin()?.isEmpty(), true);
});

test('after writes were missed, the next reading gets no map', () => {
  const since = new WrittenSince(size);
  since.begin();
  since.add(dirty(4096));
  since.lose();
  since.add(dirty(8192));
  assert.equal(since.begin(), undefined);
  assert.equal(since.begin()?.isEmpty(), true);
});
