import assert from 'node:assert/strict';
import { closeSync, fstatSync, ftruncateSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { FileBackend } from './file-backend.ts';

const directory = mkdtempSync(join(tmpdir(), 'backend-'));
after(() => rmSync(directory, { recursive: true }));
const size = 2 ** 20 + 1234;

function open(name: string): { backend: FileBackend; fd: number } {
  const fd = openSync(join(directory, name), 'w+');
  ftruncateSync(fd, size);
  return { backend: new FileBackend(fd, size, false), fd };
}

test('any mixture of writes, zeroes and trims reads back like a plain buffer', async () => {
  const range = fc.tuple(fc.nat(size - 1), fc.nat(200_000)).map(([offset, length]) => ({
    offset,
    length: Math.min(length + 1, size - offset),
  }));
  const action = fc.record({
    kind: fc.constantFrom<'write' | 'zero' | 'keep'>('write', 'zero', 'keep'),
    range,
    fill: fc.integer({ min: 1, max: 255 }),
  });
  let run = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(action, { maxLength: 12 }), async (actions) => {
      const { backend } = open(`mix${run++}`);
      try {
        const model = Buffer.alloc(size);
        for (const { kind, range, fill } of actions) {
          const { offset, length } = range;
          if (kind === 'write') backend.write(Buffer.alloc(length, fill), offset);
          else await backend.zero(offset, length, { hole: kind === 'zero', fast: false });
          model.fill(kind === 'write' ? fill : 0, offset, offset + length);
        }
        const read = Buffer.alloc(size, 1);
        backend.read(read, 0);
        assert.ok(read.equals(model));
        // Runs reported as zero are zero, and the runs cover everything, in one piece or in many.
        for (const limit of [1000, 1])
          for (let at = 0; at < size;)
            for (const { length, hole, zero } of backend.status(at, size - at, limit)) {
              assert.ok(length > 0 && at + length <= size);
              if (zero) assert.ok(model.subarray(at, at + length).every((byte) => byte === 0));
              assert.equal(hole, zero);
              at += length;
            }
        for (let at = 0; at < size;) {
          const part = backend.run(at, Math.min(100_000, size - at));
          assert.ok(part.length > 0);
          if (part.zero) assert.ok(model.subarray(at, at + part.length).every((byte) => byte === 0));
          at += part.length;
        }
      } finally {
        backend.close();
      }
    }),
    { numRuns: 40 },
  );
});

test('zeroing frees the space unless it must stay allocated', async () => {
  const { backend, fd } = open('space');
  backend.write(Buffer.alloc(2 ** 20, 7), 0);
  const full = fstatSync(fd).blocks;
  await backend.zero(0, 2 ** 19, { hole: false, fast: true });
  assert.ok(fstatSync(fd).blocks >= full);
  await backend.zero(0, 2 ** 19, { hole: true, fast: true });
  assert.ok(fstatSync(fd).blocks <= full / 2 + 16);
  await backend.trim(2 ** 19, 2 ** 19);
  assert.ok(fstatSync(fd).blocks <= 16);
  await backend.flush();
  backend.cache(0, size);
  backend.close();
});

test('after a failed flush, every later flush fails', async () => {
  const { backend, fd } = open('flush');
  closeSync(fd);
  await assert.rejects(async () => backend.flush(), { code: 'EBADF' });
  await assert.rejects(async () => backend.flush(), { code: 'EIO', message: /earlier flush failed/ });
});

test('a close waits for requests in progress and refuses new ones, so none reaches the next image', async () => {
  const { backend, fd } = open('first');
  // Zeroing takes many steps, with turns of the event loop for others between them.
  const under = backend.zero(0, size, { hole: false, fast: false });
  const flushing = backend.flush();
  const closing = backend.close();
  const other = openSync(join(directory, 'second'), 'w+');
  assert.notEqual(other, fd, 'the descriptor is still in use');
  await Promise.all([under, flushing, closing]);
  closeSync(other);
  // The kernel assigns the lowest free number, so this image gets the descriptor of the first one.
  const next = open('third');
  assert.equal(next.fd, fd);
  next.backend.write(Buffer.alloc(size, 7), 0);
  const refused = { code: 'EIO', message: 'the image is already closed' };
  await assert.rejects(backend.trim(0, size), refused);
  await assert.rejects(backend.zero(0, size, { hole: true, fast: false }), refused);
  await assert.rejects(backend.flush(), refused);
  assert.throws(() => backend.write(Buffer.alloc(10), 0), refused);
  assert.throws(() => backend.read(Buffer.alloc(10), 0), refused);
  assert.throws(() => backend.status(0, size, 10), refused);
  await backend.close();
  const there = Buffer.alloc(size);
  next.backend.read(there, 0);
  assert.ok(there.every((byte) => byte === 7));
  await next.backend.close();
});
