import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { tmpdir } from 'node:os';
import test from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { GiB, KiB, MiB } from '../../base/bytes.ts';
import { SpoolRoom, roomIn, slabSize, spaceIn } from './spool-room.ts';
import { Spool } from './spool.ts';

test('the room is a share of the available memory, within limits, and all devices share it', () => {
  assert.equal(roomIn(0), 8 * MiB);
  assert.equal(roomIn(40 * MiB), 20 * MiB);
  assert.equal(roomIn(100 * MiB), 32 * MiB);
  assert.equal(roomIn(2 * GiB), 512 * MiB);
  assert.equal(roomIn(256 * GiB), 4 * GiB);
  const first = SpoolRoom.create(2 * slabSize);
  const second = new SpoolRoom(first.setup);
  const takes = (rooms: readonly SpoolRoom[], frozen = false) => rooms.map((room) => room.take({ frozen }));
  assert.deepEqual(takes([first, second, first]), ['memory', 'memory', undefined]);
  assert.equal(second.free, 0);
  first.giveBack({ memory: 1, files: 0 });
  assert.deepEqual([second.free, ...takes([second])], [slabSize, 'memory']);

  assert.deepEqual([spaceIn(1024 * GiB), spaceIn(GiB)], [16 * GiB, 256 * MiB]);
  const spilling = SpoolRoom.create(4 * slabSize, { directory: '/', limit: 2 * slabSize });
  const many = Array.from({ length: 6 }, () => spilling);
  // The rounds before the freeze leave some memory to the freeze.
  assert.deepEqual(takes(many), ['memory', 'memory', 'memory', 'file', 'file', undefined]);
  assert.deepEqual(takes([spilling, spilling], true), ['memory', undefined]);
});

test('a spool holds the last content of each block, after any history', () => {
  const block = 4 * KiB;
  const size = 40 * block - 512;
  const rounds = fc.array(
    fc.uniqueArray(fc.record({ block: fc.nat({ max: 39 }), zero: fc.boolean() }), {
      selector: (write) => write.block,
    }),
    { maxLength: 6 },
  );
  fc.assert(
    fc.property(rounds, fc.constantFrom(1, 4, 16), fc.boolean(), (all, perGranule, spills) => {
      const room = spills
        ? SpoolRoom.create(0, { directory: tmpdir(), limit: 4 * MiB })
        : SpoolRoom.create(4 * MiB);
      const spool = new Spool(room, { size, block });
      const keep = new Bitmap(size, block);
      const expected = new Map<number, Buffer>();
      for (const round of all) {
        for (const write of round) keep.clear(write.block * block, block);
        spool.retain(keep);
        for (const write of round.sort((a, b) => a.block - b.block)) {
          const offset = write.block * block;
          const length = Math.min(block, size - offset);
          const data = write.zero ? Buffer.alloc(length) : randomBytes(length);
          assert.ok(spool.add(offset, data));
          expected.set(offset, data);
          keep.mark(offset, length);
        }
      }
      const found = new Map<number, Buffer>();
      let last = -1;
      for (const granule of spool.granules(perGranule * block)) {
        assert.ok(granule.offset > last);
        last = granule.offset;
        const into = Buffer.alloc(granule.length, 0xee);
        spool.copyTo(granule, into);
        for (const offset of granule.blocks) {
          const at = offset - granule.offset;
          found.set(offset, into.subarray(at, at + block));
        }
        assert.equal(granule.whole, granule.blocks.length === Math.ceil(granule.length / block));
      }
      assert.equal(found.size, expected.size);
      for (const [offset, data] of expected) assert.ok(found.get(offset)?.equals(data), `block at ${offset}`);
      spool.clear();
      assert.deepEqual([spool.count, room.free], [0, room.limit]);
    }),
  );
});

test('blocks of zeros take no room, and a full spool refuses a block', () => {
  const spool = new Spool(SpoolRoom.create(slabSize), { size: GiB, block: 64 * KiB });
  for (let unit = 0; unit < 100; unit++) assert.ok(spool.add(unit * 64 * KiB, Buffer.alloc(64 * KiB)));
  const added = Array.from({ length: 6 }, (_, i) => spool.add((200 + i) * 64 * KiB, randomBytes(64 * KiB)));
  assert.deepEqual(added, [true, true, true, true, false, false]);
});
