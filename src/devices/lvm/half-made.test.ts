import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isHalfMade } from './half-made.ts';

test('a snapshot is half made only if the pool is one transaction behind', () => {
  const status = '0 327680 thin-pool 1 117/1024 1031/2560 - rw discard_passdown queue_if_no_space - 256';
  assert.deepEqual(
    [0, 1, 2, 3, undefined].map((wanted) => isHalfMade(status, wanted)),
    [false, false, true, false, false],
  );
  for (const other of ['', '0 327680 thin-pool Fail', '0 655360 thin 131968 655359'])
    assert.equal(isHalfMade(other, 2), false);
});
