import assert from 'node:assert/strict';
import test from 'node:test';
import { randomBytes } from 'node:crypto';
import fc from 'fast-check';
import { MemoryTarget, device, rig } from '../../../test/helpers/transfer-rig.ts';
import { Bitmap } from '../../base/bitmap.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import { requestSize } from './target-writer.ts';

test('used blocks arrive, and all others stay as they were', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.boolean(), { minLength: 1, maxLength: 40 }),
      fc.array(fc.nat({ max: 39 })),
      fc.boolean(),
      async (usedUnits, zeroUnits, writeZeroes) => {
        const data = device(usedUnits.length, zeroUnits);
        const target = new MemoryTarget(data.length, { writeZeroes });
        const { run, all, control } = rig(t, data, { target });
        const used = all.clone();
        usedUnits.forEach((isUsed, i) => {
          if (!isUsed) used.clear(i * fingerprintUnit, fingerprintUnit);
        });
        await run('copy', used);
        const expected = Buffer.alloc(data.length, 0xee);
        for (const { offset, length } of used.extents()) data.copy(expected, offset, offset, offset + length);
        assert.ok(target.data.equals(expected));
        assert.equal(control.total().done, used.bytes());
        assert.ok(target.mostUnderWay <= target.depth * 4);
      },
    ),
    { numRuns: 60 },
  );
});

test('the tail of a device is padded to the block of the target, and read back without the padding', async (t) => {
  const data = device(3, [], 1000);
  const target = new MemoryTarget(3 * fingerprintUnit, { minimumBlock: 4096 });
  const { run, all, transfer } = rig(t, data, { target });
  await run('copy', all);
  assert.ok(target.data.subarray(0, data.length).equals(data));
  assert.ok(target.data.subarray(data.length, 2 * fingerprintUnit + 4096).every((byte) => byte === 0));
  await transfer.checkSamples();
});

test('a target with a small maximum request is written and read in pieces', async (t) => {
  const data = device(9, [4], 700);
  const target = new MemoryTarget(data.length, { maximumPayload: 16 * 1024 });
  const { run, all, transfer } = rig(t, data, { target, fingerprints: true });
  await run('copy', all);
  assert.ok(target.data.equals(data));
  await transfer.checkSamples();
  assert.equal((await run('verify', all)).mismatches, undefined);
});

test('zeros that the target has already are not written, unless data was written there', async (t) => {
  const data = device(8, [2, 3, 4]);
  const { run, all, targetZero, target, source, control } = rig(t, data);
  targetZero.fill(true);
  target.data.fill(0);
  const zeroed = t.mock.method(target, 'writeZeroes', () => Promise.resolve());
  await run('copy', all);
  assert.equal(zeroed.mock.callCount(), 0);
  assert.equal(control.total().zero, 3 * fingerprintUnit);
  // Units that held data are no longer known to be zero.
  source.data.fill(0);
  await run('copy', all);
  assert.ok(zeroed.mock.callCount() > 0);
});

test('a comparing pass finds the units that changed, and sends nothing', async (t) => {
  const data = device(20, [5, 6]);
  const { run, all, target, source, control, found } = rig(t, data, { fingerprints: true });
  await run('copy', all);
  randomBytes(10).copy(source.data, 7 * fingerprintUnit + 100);
  source.data.fill(0, 9 * fingerprintUnit, 10 * fingerprintUnit);
  const { writes } = target;
  await run('compare', all);
  assert.deepEqual(
    [...found.extents()].map(({ offset }) => offset / fingerprintUnit),
    [7, 9],
  );
  assert.equal(target.writes, writes);
  assert.equal(control.total().different, 2 * fingerprintUnit);
  // Units that were found are found again until they are sent.
  await run('compare', all);
  const changed = found.clone();
  await run('copy', changed);
  assert.ok(target.data.equals(source.data));
  await run('compare', all);
  assert.ok(found.isEmpty());
});

test('small units send only the blocks that are set, and fingerprint the whole unit', async (t) => {
  const data = device(6, [4]);
  const target = new MemoryTarget(data.length);
  const { run, source, found, all } = rig(t, data, { fingerprints: true, unit: 4096, target });
  const set = new Bitmap(data.length, 4096);
  set.fill(true);
  await run('copy', set);
  const before = Buffer.from(target.data);
  // Two blocks of one unit, one of another, and one of a unit of zeros change. One that changes is not set.
  set.fill(false);
  for (const block of [16, 18, 35, 70]) {
    randomBytes(4096).copy(source.data, block * 4096);
    set.mark(block * 4096, 4096);
  }
  randomBytes(4096).copy(source.data, 40 * 4096);
  await run('copy', set);
  const expected = Buffer.from(before);
  for (const block of [16, 18, 35, 70])
    source.data.copy(expected, block * 4096, block * 4096, (block + 1) * 4096);
  assert.ok(target.data.equals(expected));
  // The unit of block 40 was read for block 35, so its fingerprint covers the whole unit as it was read. That is why a
  // fingerprint is valid only while no block of its unit is pending.
  await run('compare', all);
  assert.ok(found.isEmpty());
});

test('units larger than a fingerprint unit send their blocks once', async (t) => {
  const data = device(11, [5], 3000);
  const target = new MemoryTarget(data.length);
  const { run, source } = rig(t, data, { unit: 4 * fingerprintUnit, target, fingerprints: true });
  const set = new Bitmap(data.length, 4 * fingerprintUnit);
  set.mark(5 * fingerprintUnit, 1);
  set.mark(data.length - 1, 1);
  await run('copy', set);
  const expected = Buffer.alloc(data.length, 0xee);
  source.data.copy(expected, 4 * fingerprintUnit, 4 * fingerprintUnit);
  assert.ok(target.data.equals(expected));
});

test('blocks smaller than that of the target are rounded out to its block', async (t) => {
  const data = device(3, [], 65536);
  const target = new MemoryTarget(data.length, { minimumBlock: 16384 });
  const { run, source } = rig(t, data, { unit: 4096, target });
  const set = new Bitmap(data.length, 4096);
  set.mark(5 * 4096, 4096);
  await run('copy', set);
  const expected = Buffer.alloc(data.length, 0xee);
  source.data.copy(expected, 16384, 16384, 32768);
  assert.ok(target.data.equals(expected));
});

test('a frozen pass keeps the changes in memory, and `sendSpool` writes them', async (t) => {
  const data = device(20, []);
  const { run, all, target, source, transfer, found, sendSpool } = rig(t, data, { fingerprints: true });
  await run('copy', all);
  const { writes } = target;
  for (const unit of [0, 7, 19]) randomBytes(10).copy(source.data, unit * fingerprintUnit);
  source.data.fill(0, 3 * fingerprintUnit, 5 * fingerprintUnit);
  const frozen = Buffer.from(source.data);
  const { overflow } = await run('frozen-compare', all);
  assert.equal(overflow, 0);
  assert.equal(target.writes, writes);
  const kept = found.clone();
  assert.deepEqual(
    [...kept.extents()].map(({ offset, length }) => [
      offset / fingerprintUnit,
      Math.ceil(length / fingerprintUnit),
    ]),
    [
      [0, 1],
      [3, 2],
      [7, 1],
      [19, 1],
    ],
    'all that is kept is told, since it is pending until it is sent',
  );
  // After the thaw the source keeps changing. The image must not see it.
  randomBytes(1000).copy(source.data);
  await sendSpool(kept);
  assert.ok(target.data.equals(frozen));
  // After a lost connection it is sent once more. Then it is dropped.
  target.data.fill(0xee, 0, fingerprintUnit);
  await sendSpool(kept);
  assert.ok(target.data.equals(frozen));
  transfer.dropSpool();
  await transfer.checkSamples();
});

test('a frozen pass that compares keeps the changes of all its segments', async (t) => {
  const data = device(20, []);
  const { run, all, target, source, found, sendSpool } = rig(t, data, { fingerprints: true });
  await run('copy', all);
  randomBytes(data.length).copy(source.data);
  const frozen = Buffer.from(source.data);
  const first = all.clone();
  first.clear(10 * fingerprintUnit, data.length - 10 * fingerprintUnit);
  const second = all.clone();
  second.andNot(first);
  for (const segment of [first, second]) {
    await run('frozen-compare', segment);
    assert.deepEqual([...found.extents()], [...segment.extents()]);
  }
  await sendSpool(all);
  assert.ok(target.data.equals(frozen));
});

test('changes that memory has no room for go to the target at once, and are counted', async (t) => {
  const data = device(40, []);
  const { run, all, target, source, transfer, sendSpool } = rig(t, data, {
    fingerprints: true,
    spoolBytes: requestSize,
  });
  await run('copy', all);
  randomBytes(source.data.length).copy(source.data);
  await assert.rejects(run('frozen-compare', all), { code: 'FREEZE_TOO_LONG' });
  transfer.dropSpool();
  const { overflow } = await run('frozen-compare', all, { mayOverflow: true });
  assert.equal(overflow, source.data.length - requestSize);
  await sendSpool(all);
  assert.ok(target.data.equals(source.data));
  assert.equal((await run('verify', all)).mismatches, undefined);
});

test('bad sectors fail the copy, or become zeros that are recorded by sector', async (t) => {
  const data = device(4, []);
  const strict = rig(t, data);
  strict.source.bad.add(fingerprintUnit + 1024);
  await assert.rejects(strict.run('copy', strict.all), { code: 'DEVICE_READ_ERROR' });

  const lenient = rig(t, data, { onReadError: 'zero' });
  lenient.source.bad.add(fingerprintUnit + 1024).add(fingerprintUnit + 1536);
  const { readErrors } = await lenient.run('copy', lenient.all);
  assert.deepEqual(readErrors, [{ offset: fingerprintUnit + 1024, length: 1024 }]);
  const expected = Buffer.from(data);
  expected.fill(0, fingerprintUnit + 1024, fingerprintUnit + 2048);
  assert.ok(lenient.target.data.equals(expected));
});

test('a bad sector between blocks that are read together is not an error, but one in a block is', async (t) => {
  const block = 4096;
  const data = device(2, []);
  for (const onReadError of ['fail', 'zero'] as const) {
    const { run, source, target, sendSpool } = rig(t, data, { unit: block, onReadError });
    const set = new Bitmap(data.length, block);
    for (const each of [1, 4]) set.mark(each * block, block);
    source.bad.add(2 * block + 512);
    for (const mode of ['stash', 'frozen'] as const) {
      assert.deepEqual((await run(mode, set)).readErrors, []);
      // Both modes read it.
      if (mode === 'frozen') await sendSpool(set);
    }
    const expected = Buffer.alloc(data.length, 0xee);
    for (const each of [1, 4]) data.copy(expected, each * block, each * block, (each + 1) * block);
    assert.ok(target.data.equals(expected));
  }
  const strict = rig(t, data, { unit: block });
  const set = new Bitmap(data.length, block);
  for (const each of [1, 4]) set.mark(each * block, block);
  strict.source.bad.add(2 * block + 512).add(4 * block + 512);
  await assert.rejects(strict.run('frozen', set), {
    code: 'DEVICE_READ_ERROR',
    message: new RegExp(`cannot be read at ${4 * block + 512} \\(512 bytes in 1 places`),
  });
  const lenient = rig(t, data, { unit: block, onReadError: 'zero' });
  lenient.source.bad.add(2 * block + 512).add(4 * block + 512);
  assert.deepEqual((await lenient.run('frozen', set)).readErrors, [{ offset: 4 * block + 512, length: 512 }]);
});

test('a lost connection is reported as such, and requests under way stay unconfirmed', async (t) => {
  const data = device(160, []);
  const { run, all, target, unconfirmed } = rig(t, data);
  target.failAt = 5;
  await assert.rejects(run('copy', all), { code: 'NBD_CONNECTION_LOST' });
  assert.ok(unconfirmed.count() >= 5);
  target.failAt = Infinity;
  await run('copy', all);
  assert.ok(target.data.equals(data));
});

test('zeros that were gathered when the connection was lost do not count as sent', async (t) => {
  const data = device(40, []);
  const { run, all, target, source, unconfirmed } = rig(t, data, { fingerprints: true });
  await run('copy', all);
  unconfirmed.fill(false);
  // The zeros are still being gathered when a write fails and the loop waits for its buffer.
  source.data.fill(0, 2 * fingerprintUnit, 4 * fingerprintUnit);
  for (let unit = 4; unit < 40; unit++) randomBytes(10).copy(source.data, unit * fingerprintUnit);
  target.failAt = target.writes + 1;
  const changed = all.clone();
  changed.clear(0, 2 * fingerprintUnit);
  await assert.rejects(run('copy', changed), { code: 'NBD_CONNECTION_LOST' });
  assert.ok(unconfirmed.has(2) && unconfirmed.has(3));
});

test('samples and a full verification find a target that returns other data', async (t) => {
  const data = device(30, [3]);
  const { run, all, target, transfer } = rig(t, data, { fingerprints: true });
  await run('copy', all);
  assert.equal((await run('verify', all)).mismatches, undefined);
  target.data[12 * fingerprintUnit + 5]! ^= 1;
  assert.deepEqual((await run('verify', all)).mismatches, { first: 12 * fingerprintUnit, count: 1 });
  await assert.rejects(transfer.checkSamples(), { code: 'TARGET_MISMATCH' });
});

test('stopping ends a run, even a paused one', async (t) => {
  const { run, all, control } = rig(t, device(40, []));
  control.paused = true;
  const running = run('copy', all);
  control.stopped = true;
  await assert.rejects(running, { code: 'CANCELLED' });
});

test('space is given back in whole blocks of the target, and never next to them', async (t) => {
  const data = device(4, []);
  const freed = new Bitmap(data.length, 4096);
  freed.mark(4096, 5 * 4096);
  freed.mark(2 * fingerprintUnit, 4096);
  for (const { minimumBlock, ranges } of [
    {
      minimumBlock: 1,
      ranges: [
        [4096, 5 * 4096],
        [2 * fingerprintUnit, 4096],
      ],
    },
    { minimumBlock: 8192, ranges: [[8192, 4 * 4096]] },
  ]) {
    // This target does not support trim: zeroes that may be holes are as good.
    const target = new MemoryTarget(4 * fingerprintUnit, { minimumBlock });
    const { transfer } = rig(t, data, { target, unit: 4096 });
    const { bytes } = await transfer.trim(freed);
    const expected = Buffer.alloc(4 * fingerprintUnit, 0xee);
    for (const [offset = 0, length = 0] of ranges) expected.fill(0, offset, offset + length);
    assert.ok(target.data.equals(expected), `blocks of ${minimumBlock}`);
    assert.equal(
      bytes,
      ranges.reduce((sum, [, length = 0]) => sum + length, 0),
    );
  }
});

test('rounds before the freeze and the freeze itself give the frozen device, for any block size of the target', async (t) => {
  const block = 4096;
  const write = fc.record({
    block: fc.nat({ max: 159 }),
    blocks: fc.integer({ min: 1, max: 20 }),
    zero: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(write, { maxLength: 8 }), { minLength: 1, maxLength: 5 }),
      fc.constantFrom(1, 4 * block, fingerprintUnit, 4 * fingerprintUnit),
      async (rounds, minimumBlock) => {
        const data = device(10, [3], 5000);
        const target = new MemoryTarget(12 * fingerprintUnit, { minimumBlock });
        const { run, source, stashed, sendSpool, found, transfer } = rig(t, data, {
          ...{ target, fingerprints: true, unit: block },
        });
        const pending = new Bitmap(data.length, block);
        pending.fill(true);
        await run('copy', pending);
        pending.fill(false);
        for (const [i, writes] of rounds.entries()) {
          for (const { block: first, blocks, zero } of writes) {
            const [offset, end] = [first * block, Math.min((first + blocks) * block, data.length)];
            if (offset >= end) continue;
            if (zero) source.data.fill(0, offset, end);
            else randomBytes(end - offset).copy(source.data, offset);
            pending.mark(offset, end - offset);
            stashed.clear(offset, end - offset);
          }
          const wanted = pending.clone();
          wanted.andNot(stashed);
          await run(i === rounds.length - 1 ? 'frozen' : 'stash', wanted);
        }
        const frozen = Buffer.from(source.data);
        // After the thaw everything changes, and no change may be seen.
        randomBytes(data.length).copy(source.data);
        if (minimumBlock === 1) assert.equal(transfer.spoolLacks(), 0);
        await sendSpool(pending);
        const known = found.clone();
        assert.ok(target.data.subarray(0, data.length).equals(frozen));
        assert.equal((await run('verify', allOf(data.length))).mismatches, undefined);
        await transfer.checkSamples();
        // A unit has its fingerprint if the spool has all of its blocks.
        for (let unit = 0; unit < 10; unit++) {
          const start = unit * fingerprintUnit;
          const kept = [...pending.extents(start, Math.min(start + fingerprintUnit, data.length))];
          const whole =
            kept[0]?.offset === start && kept[0].length >= Math.min(fingerprintUnit, data.length - start);
          if (whole && minimumBlock <= fingerprintUnit) assert.ok(known.has(unit), `unit ${unit}`);
        }
      },
    ),
    { numRuns: 60 },
  );
});

function allOf(size: number): Bitmap {
  const set = new Bitmap(size, fingerprintUnit);
  set.fill(true);
  return set;
}
