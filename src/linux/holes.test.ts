import assert from 'node:assert/strict';
import {
  closeSync,
  fstatSync,
  ftruncateSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { willNeed } from './advise.ts';
import { duplicate } from './descriptors.ts';
import { allocate, punchHole, zeroRange } from './fallocate.ts';
import { nextData, nextHole } from './seek.ts';

const directory = mkdtempSync(join(tmpdir(), 'holes-'));
after(() => rmSync(directory, { recursive: true }));

const unit = 64 * 1024;

function scratch(name: string): number {
  const fd = openSync(join(directory, name), 'w+');
  ftruncateSync(fd, 16 * unit);
  return fd;
}

function unsupported(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'EOPNOTSUPP';
}

test('data and holes are distinguished, and a punched hole frees its blocks and reads as zeros', (t) => {
  const fd = scratch('punch');
  try {
    assert.equal(nextData(fd, 0), undefined);
    assert.equal(nextHole(fd, 0), 0);
    writeSync(fd, Buffer.alloc(4 * unit, 7), 0, 4 * unit, 4 * unit);
    assert.equal(nextData(fd, 0), 4 * unit);
    assert.equal(nextHole(fd, 4 * unit), 8 * unit);
    try {
      punchHole(fd, 5 * unit, unit);
    } catch (error) {
      if (unsupported(error)) {
        t.skip('no holes on this filesystem');
        return;
      }
      throw error;
    }
    assert.equal(nextHole(fd, 4 * unit), 5 * unit);
    assert.equal(nextData(fd, 5 * unit), 6 * unit);
    const read = Buffer.alloc(unit, 1);
    readSync(fd, read, 0, unit, 5 * unit);
    assert.ok(read.every((byte) => byte === 0));
    assert.ok(fstatSync(fd).blocks * 512 < 4 * unit);
  } finally {
    closeSync(fd);
  }
});

test('zeroed and allocated ranges keep their space and the size of the file', (t) => {
  const fd = scratch('zero');
  try {
    writeSync(fd, Buffer.alloc(unit, 7), 0, unit, 0);
    try {
      zeroRange(fd, 0, 2 * unit);
      allocate(fd, 2 * unit, unit);
    } catch (error) {
      if (unsupported(error)) {
        t.skip('no zero range on this filesystem');
        return;
      }
      throw error;
    }
    const read = Buffer.alloc(unit, 1);
    readSync(fd, read, 0, unit, 0);
    assert.ok(read.every((byte) => byte === 0));
    assert.equal(fstatSync(fd).size, 16 * unit);
    assert.ok(fstatSync(fd).blocks * 512 >= 3 * unit);
  } finally {
    closeSync(fd);
  }
});

test('offsets of more than 32 bits are passed correctly', () => {
  const fd = openSync(join(directory, 'large'), 'w+');
  try {
    const far = 5 * 2 ** 40 + 4096 * 3;
    ftruncateSync(fd, far + 2 * unit);
    writeSync(fd, Buffer.from('x'), 0, 1, far);
    assert.ok((nextData(fd, 0) ?? 0) > far - unit);
    assert.ok(nextHole(fd, far) > far);
  } finally {
    closeSync(fd);
  }
});

test('errors carry the name of errno', () => {
  assert.throws(() => nextHole(-1, 0), { code: 'EBADF' });
  assert.throws(() => punchHole(-1, 0, 1), { code: 'EBADF' });
  assert.throws(() => willNeed(-1, 0, 1), { code: 'EBADF' });
  assert.throws(() => duplicate(-1), { code: 'EBADF' });
});

test('a duplicate stays open after its original is closed', () => {
  const fd = scratch('duplicate');
  const copy = duplicate(fd);
  closeSync(fd);
  assert.equal(fstatSync(copy).size, 16 * unit);
  willNeed(copy, 0, unit);
  closeSync(copy);
});
