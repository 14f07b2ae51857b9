import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Clock } from '../base/clock.ts';
import type { Source } from './source.ts';
import { failingAfter, failingAt, faultySource, faultyTarget } from './fault-injection.ts';
import { openNullTarget } from './null-target.ts';
import { rateLimited, TokenBucket } from './rate-limit.ts';
import { readSurvivors, readWithRetry } from './read-errors.ts';

/** A clock that jumps to the end of each sleep. */
function heldClock(): Clock & { time: number } {
  const clock = {
    time: 0,
    now: () => clock.time,
    monotonic: () => clock.time,
    sleep: (ms: number) => {
      clock.time += ms;
      return Promise.resolve();
    },
  };
  return clock;
}

test('a rate limit takes as long as the bytes ask for, the burst apart', async () => {
  const clock = heldClock();
  const target = rateLimited(openNullTarget(1e9), new TokenBucket(clock, 1000, 100));
  for (let i = 0; i < 10; i++) await target.write(0, Buffer.alloc(500));
  assert.equal(clock.time, 4900);
  await target.writeZeroes(0, 1e9, { hole: true });
  assert.equal(clock.time, 4900);
  clock.time += 1e6;
  await target.write(0, Buffer.alloc(500));
  assert.equal(clock.time, 4900 + 1e6 + 400);
});

test('no window of time lets through more than rate and burst allow', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.record({ bytes: fc.nat(5000), idle: fc.nat(3000) })), async (steps) => {
      const clock = heldClock();
      const bucket = new TokenBucket(clock, 1000, 500);
      let sent = 0;
      for (const { bytes, idle } of steps) {
        clock.time += idle;
        await bucket.take(bytes);
        sent += bytes;
        assert.ok(sent <= clock.time + 500 + 1e-6);
      }
    }),
  );
});

test('injected faults come where they were asked for', async () => {
  const broken = faultyTarget(openNullTarget(1e6), { fail: failingAt(5000) });
  await broken.write(0, Buffer.alloc(5000));
  await assert.rejects(broken.write(4999, Buffer.alloc(2)), { code: 'TARGET_WRITE_ERROR' });
  const cut = faultyTarget(openNullTarget(1e6), { fail: failingAfter(2) });
  await cut.write(0, Buffer.alloc(1));
  await cut.flush();
  await assert.rejects(cut.flush(), { code: 'NBD_CONNECTION_LOST' });
});

const size = 64 * 512;
const contents = Buffer.alloc(size, 'contents of the disk');
const disk: Source = {
  name: 'disk',
  size,
  sectorSize: 512,
  readAt: (offset, length) => Promise.resolve(Uint8Array.from(contents.subarray(offset, offset + length))),
  close: () => Promise.resolve(),
};

test('every readable sector is saved, and every bad one is named and zeroed', async () => {
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

test('a sector that reads at the second try is no loss', async () => {
  let tries = 0;
  const flaky = async (at: number, into: Uint8Array): Promise<void> => {
    const source = faultySource(disk, { bad: tries++ === 0 ? [{ offset: 0, length: size }] : [] });
    into.set(await source.readAt(at, into.length));
  };
  const into = Buffer.alloc(4096);
  assert.deepEqual(await readSurvivors(flaky, 0, into, { sectorSize: 512 }), []);
  tries = 0;
  await readWithRetry(flaky, 0, into, { sectorSize: 512 });
  assert.ok(into.equals(contents.subarray(0, 4096)));
  tries = 0;
  await assert.rejects(readWithRetry(flaky, 0, into, { sectorSize: 512, retries: 0 }), {
    code: 'DEVICE_READ_ERROR',
  });
});

test('a device that goes away is no bad sector', async () => {
  const source = faultySource(disk, { goneAfter: 0 });
  await assert.rejects(
    readSurvivors(async (at, part) => part.set(await source.readAt(at, part.length)), 0, Buffer.alloc(4096), {
      sectorSize: 512,
    }),
    { code: 'DEVICE_GONE' },
  );
});
