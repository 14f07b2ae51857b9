import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { faultySource } from '../../test/helpers/faulty-source.ts';
import { readSurvivors } from './read-errors.ts';
import type { Source } from './source.ts';

const size = 64 * 512;
const contents = Buffer.alloc(size, 'contents of the disk');
const disk: Source = {
  name: 'disk',
  size,
  sectorSize: 512,
  readAt: (offset, length) => Promise.resolve(Uint8Array.from(contents.subarray(offset, offset + length))),
  close: () => Promise.resolve(),
};

test('every readable sector is saved, and every bad sector is returned and zeroed', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(fc.nat(63)), fc.nat(60), async (badSectors, first) => {
      const source = faultySource(disk, {
        bad: badSectors.map((sector) => ({ offset: sector * 512 + 7, length: 1 })),
      });
      const offset = first * 512;
      const into = Buffer.alloc(size - offset, 0xee);
      const failed = await readSurvivors(
        async (at, part) => part.set(await source.readAt(at, part.length)),
        offset,
        into,
        { sectorSize: 512 },
      );
      const expected = Buffer.from(contents.subarray(offset));
      const wanted = badSectors.filter((sector) => sector >= first).sort((a, b) => a - b);
      for (const sector of wanted) expected.fill(0, sector * 512 - offset, (sector + 1) * 512 - offset);
      assert.ok(into.equals(expected));
      const named = failed.flatMap((extent) =>
        Array.from({ length: extent.length / 512 }, (_, i) => extent.offset / 512 + i),
      );
      assert.deepEqual(named, wanted);
      for (const [i, extent] of failed.entries())
        assert.ok(i === 0 || failed[i - 1]!.offset + failed[i - 1]!.length < extent.offset, 'joined');
    }),
  );
});

test('a sector that is read at the second attempt is not lost', async () => {
  let tries = 0;
  const flaky = async (at: number, into: Uint8Array): Promise<void> => {
    const source = faultySource(disk, { bad: tries++ === 0 ? [{ offset: 0, length: size }] : [] });
    into.set(await source.readAt(at, into.length));
  };
  const into = Buffer.alloc(4096);
  assert.deepEqual(await readSurvivors(flaky, 0, into, { sectorSize: 512 }), []);
  assert.ok(into.equals(contents.subarray(0, 4096)));
});

test('a device that vanishes is not reported as a bad sector', async () => {
  const source = faultySource(disk, { goneAfter: 0 });
  await assert.rejects(
    readSurvivors(async (at, part) => part.set(await source.readAt(at, part.length)), 0, Buffer.alloc(4096), {
      sectorSize: 512,
    }),
    { code: 'DEVICE_GONE' },
  );
});
