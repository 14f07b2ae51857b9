import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import type { ImageReader } from '../image/image-reader.ts';
import { Overlay } from './overlay.ts';

const directory = mkdtempSync(join(tmpdir(), 'overlay-test-'));
after(() => rmSync(directory, { recursive: true }));

const size = 5 * 65536 + 1000;

function imageOf(bytes: Buffer): ImageReader {
  return {
    name: 'image',
    size: bytes.length,
    chunkSize: 65536,
    read: (offset, length) => Promise.resolve(Buffer.from(bytes.subarray(offset, offset + length))),
    readInto: async (into, offset) => {
      // Answers later, so that concurrent requests overlap.
      await new Promise((resolve) => setImmediate(resolve));
      bytes.copy(into, 0, offset, offset + into.length);
    },
    // eslint-disable-next-line @typescript-eslint/require-await
    extents: async function* (from = 0, to = bytes.length) {
      for (let unit = 0; unit * 65536 < bytes.length; unit++) {
        if (unit % 2 === 1) continue;
        const start = Math.max(from, unit * 65536);
        const end = Math.min(to, (unit + 1) * 65536, bytes.length);
        if (start < end) yield { offset: start, length: end - start };
      }
    },
    close: () => Promise.resolve(),
  };
}

test('an overlay returns the data written over the image, also with concurrent requests', async () => {
  const range = fc.tuple(fc.nat(size - 1), fc.integer({ min: 1, max: 3 * 65536 }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(range, fc.integer({ min: 1, max: 255 }), fc.boolean(), fc.boolean()), {
        maxLength: 12,
      }),
      async (changes) => {
        const bytes = Buffer.alloc(size);
        for (let unit = 0; unit < 6; unit += 2) bytes.fill(7 + unit, unit * 65536, (unit + 1) * 65536);
        const model = Buffer.from(bytes);
        const overlay = await Overlay.create(imageOf(bytes), directory);
        try {
          const underWay: Promise<void>[] = [];
          for (const [[offset, wanted], value, zero, hole] of changes) {
            const length = Math.min(wanted, size - offset);
            model.fill(zero ? 0 : value, offset, offset + length);
            underWay.push(
              zero ? overlay.zero(offset, length, hole) : overlay.write(Buffer.alloc(length, value), offset),
            );
          }
          await Promise.all(underWay);
          const read = Buffer.alloc(size, 0xee);
          await overlay.read(read, 0);
          assert.ok(read.equals(model));
          let at = 0;
          for (const run of await overlay.status(0, size, 1000)) {
            if (run.zero) assert.ok(model.subarray(at, at + run.length).every((byte) => byte === 0));
            at += run.length;
          }
          assert.equal(at, size);
          const bounded = await overlay.status(0, size, 2);
          assert.ok(bounded.length >= 1 && bounded.length <= 2);
        } finally {
          await overlay.close();
        }
      },
    ),
    { numRuns: 60 },
  );
  assert.deepEqual(readdirSync(directory), []);
});
