/**
 * The contract of `Target` as a test suite that every implementation runs:
 *
 *     targetContract('file', async () => ({ target, close }));
 *
 * `open` returns a fresh writable target of at least 4 MiB with any content. `close` is called at the end of each test, even
 * if the test has closed or destroyed the target itself.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import type { Extent } from '../../src/base/extents.ts';
import type { Target } from '../../src/block/target.ts';

export interface OpenedTarget {
  readonly target: Target;
  readonly close: () => Promise<void>;
}

const REGION = 2 ** 20;

export function targetContract(name: string, open: () => Promise<OpenedTarget>): void {
  const contract = (what: string, run: (target: Target) => Promise<void>): void => {
    void test(what, { timeout: 60_000 }, async () => {
      const { target, close } = await open();
      try {
        await run(target);
      } finally {
        await close();
      }
    });
  };

  void describe(`Target contract: ${name}`, () => {
    contract('reports its properties', async (target) => {
      assert.ok(target.name.length > 0);
      assert.ok(Number.isSafeInteger(target.size) && target.size >= 4 * REGION, `size ${target.size}`);
      assert.ok(Number.isInteger(Math.log2(target.minimumBlock)), `minimumBlock ${target.minimumBlock}`);
      assert.ok(target.maximumPayload >= REGION, `maximumPayload ${target.maximumPayload}`);
      assert.ok(target.depth >= 1);
      assert.equal(target.readOnly, false);
      await target.flush();
    });

    contract('returns the data that was written, from the first byte to the last', async (target) => {
      const block = blockOf(target);
      const last = target.size - block;
      await target.write(0, pattern(block, 1));
      await target.write(last, pattern(block, 2));
      await target.write(block, pattern(3 * block, 3));
      await target.flush();
      await same(target, 0, pattern(block, 1));
      await same(target, block, pattern(3 * block, 3));
      await same(target, last, pattern(block, 2));
    });

    contract('keeps to a model through random writes, zeroes and reads', async (target) => {
      const block = blockOf(target);
      const model = Buffer.alloc(REGION, 0xaa);
      await target.write(0, model);
      const random = randomNumbers(20240101);
      for (let step = 0; step < 60; step++) {
        const offset = Math.floor(random() * (REGION / block)) * block;
        const most = Math.min(REGION - offset, 65536);
        const length = Math.max(block, Math.floor((random() * most) / block) * block);
        const action = random();
        if (action < 0.5) {
          const data = pattern(length, step);
          await target.write(offset, data);
          model.set(data, offset);
        } else if (action < 0.8) {
          await target.writeZeroes(offset, length, { hole: action < 0.65 });
          model.fill(0, offset, offset + length);
        } else {
          await same(target, offset, model.subarray(offset, offset + length));
        }
      }
      await target.flush();
      await same(target, 0, model);
    });

    contract('carries out many writes at once', async (target) => {
      const block = Math.max(blockOf(target), 16384);
      const count = Math.min(64, REGION / block);
      const numbers = Array.from({ length: count }, (_, i) => i);
      await Promise.all(numbers.map((i) => target.write(i * block, pattern(block, i))));
      await Promise.all(numbers.map((i) => same(target, i * block, pattern(block, i))));
    });

    contract('makes ranges of any length read as zeros, with and without holes', async (target) => {
      for (const hole of [true, false]) {
        await target.write(0, pattern(REGION, 9));
        await target.write(target.size - REGION, pattern(REGION, 9));
        await target.writeZeroes(0, target.size, { hole });
        await same(target, 0, Buffer.alloc(REGION));
        await same(target, target.size - REGION, Buffer.alloc(REGION));
      }
      const block = blockOf(target);
      await target.write(0, pattern(3 * block, 4));
      await target.writeZeroes(block, block, { hole: true });
      await target.writeZeroes(0, 0, { hole: true });
      await same(target, 0, pattern(3 * block, 4).fill(0, block, 2 * block));
    });

    contract('trims no more than the given range', async (target) => {
      const block = Math.max(blockOf(target), 65536);
      const data = pattern(3 * block, 5);
      await target.write(0, data);
      await target.trim(block, block);
      await target.trim(0, 0);
      await same(target, 0, data.subarray(0, block));
      await same(target, 2 * block, data.subarray(2 * block));
    });

    contract('reports a range as zero only if it reads as zeros', async (target) => {
      await target.writeZeroes(0, target.size, { hole: true });
      await target.write(REGION, pattern(65536, 6));
      await target.write(2 * REGION, pattern(65536, 7));
      await target.flush();
      const start = 65536;
      const length = 3 * REGION;
      const extents: Extent[] = [];
      for await (const extent of target.zeroExtents(start, length)) extents.push(extent);
      let end = start;
      for (const extent of extents) {
        assert.ok(extent.length > 0 && extent.offset >= end, 'sorted, disjoint, not empty');
        end = extent.offset + extent.length;
        await same(target, extent.offset, Buffer.alloc(extent.length));
      }
      assert.ok(end <= start + length, 'within the range that was asked for');
      if (!target.abilities.zeroMap) assert.deepEqual(extents, []);
    });

    contract('refuses requests past its end, and continues', async (target) => {
      const block = blockOf(target);
      const { size } = target;
      await target.write(size - block, pattern(block, 8));
      await assert.rejects(target.write(size, pattern(block, 9)));
      await assert.rejects(target.write(size - block, pattern(2 * block, 9)));
      await assert.rejects(target.writeZeroes(size - block, 2 * block, { hole: true }));
      if (target.abilities.read) await assert.rejects(target.read(size - block, 2 * block));
      await same(target, size - block, pattern(block, 8));
    });

    contract('gives each read its own memory', async (target) => {
      if (!target.abilities.read) return;
      const block = blockOf(target);
      await target.write(0, pattern(block, 1));
      const first = await target.read(0, block);
      const second = await target.read(0, block);
      second.fill(0);
      assert.deepEqual(Buffer.from(first), pattern(block, 1));
    });

    contract('finishes running requests when it is closed', async (target) => {
      const block = blockOf(target);
      const writes = Array.from({ length: 8 }, (_, i) => target.write(i * block, pattern(block, i)));
      await target.close();
      await Promise.all(writes);
      await assert.rejects(target.write(0, pattern(block, 1)), 'a closed target takes nothing');
    });

    contract('releases everything when it is destroyed', async (target) => {
      const block = blockOf(target);
      const writes = Array.from({ length: 8 }, (_, i) => target.write(i * block, pattern(block, i)));
      target.destroy();
      await Promise.allSettled(writes);
      await assert.rejects(target.write(0, pattern(block, 1)), 'a destroyed target takes nothing');
      target.destroy();
    });
  });
}

/** Returns a block length that suits the target and is at least a sector. */
function blockOf(target: Target): number {
  return Math.max(target.minimumBlock, 512);
}

async function same(target: Target, offset: number, expected: Uint8Array): Promise<void> {
  if (!target.abilities.read) return;
  const step = Math.min(REGION, target.maximumPayload);
  for (let at = 0; at < expected.length; at += step) {
    const length = Math.min(step, expected.length - at);
    const found = await target.read(offset + at, length);
    assert.ok(
      Buffer.compare(found, expected.subarray(at, at + length)) === 0,
      `${length} bytes at ${offset + at} differ from the data that was written`,
    );
  }
}

/** Returns bytes without zeros that differ from seed to seed. */
function pattern(length: number, seed: number): Buffer {
  const data = Buffer.allocUnsafe(length);
  for (let i = 0; i < length; i++) data[i] = ((i * 7 + (i >>> 9) + seed * 31) % 255) + 1;
  return data;
}

/** Returns a generator of numbers in [0, 1), the same for the same seed (linear congruential). */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}
