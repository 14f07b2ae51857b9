import assert from 'node:assert/strict';
import { test } from 'node:test';
import { openScripted, scriptFor } from '../../../test/helpers/scripted-target.ts';
import { MiB } from '../../base/bytes.ts';
import { targetContract } from '../../../test/contracts/target.contract.ts';
import { NBD_CMD, NBD_CMD_FLAG, NBD_ERROR, NBD_FLAG } from '../protocol/constants.ts';
import type { Script } from '../../../test/helpers/scripted-nbd-server.ts';

for (const [name, script] of [
  ['structured replies', {}],
  ['simple replies', { structured: false }],
  ['oldstyle', { style: 'oldstyle' }],
  ['EXPORT_NAME with zeroes, bytes in sevens', { style: 'newstyle', noZeroes: false, split: 7777 }],
  ['block sizes', { blockSizes: { minimum: 4096, preferred: 65536, maximum: MiB } }],
  ['no zeroing', { flags: NBD_FLAG.HAS_FLAGS }],
] as [string, Script][])
  targetContract(`NBD, ${name}`, async () => {
    const { target } = await openScripted({ size: 2 ** 22, ...script });
    return {
      target,
      close: () => {
        target.destroy();
        return Promise.resolve();
      },
    };
  });

test('replies may arrive in any order, and reads in scattered chunks', async () => {
  const waiting: (() => void)[] = [];
  const { target, server } = await openScripted(
    scriptFor(NBD_CMD.READ, (request, _payload, s) => {
      const { offset, length } = request;
      const half = length / 2;
      waiting.push(() => {
        s.answerData(request, offset + half, s.memory.subarray(offset + half, offset + length), false);
        s.answerHole(request, offset, half, true);
      });
      if (waiting.length === 3) for (const answer of waiting.reverse()) answer();
      return true;
    }),
  );
  server.memory.fill(7);
  const reads = await Promise.all([0, 8192, 16384].map((offset) => target.read(offset, 8192)));
  for (const read of reads) {
    assert.ok(read.subarray(0, 4096).every((byte) => byte === 0));
    assert.ok(read.subarray(4096).every((byte) => byte === 7));
  }
  target.destroy();
});

test('zeroes are sent in pieces, with the requested flags', async () => {
  const { target, server } = await openScripted({ size: 3 * 2 ** 20 });
  await target.writeZeroes(0, 4096, { hole: true });
  await target.writeZeroes(0, 4096, { hole: false, fua: true });
  await target.writeZeroes(0, 4096, { hole: true, fast: true });
  assert.deepEqual(
    server.requests.map((request) => request.flags),
    [0, NBD_CMD_FLAG.NO_HOLE | NBD_CMD_FLAG.FUA, NBD_CMD_FLAG.FAST_ZERO],
  );
  await target.write(0, Buffer.alloc(512), { fua: true });
  assert.equal(server.requests.at(-1)?.flags, NBD_CMD_FLAG.FUA);
  target.destroy();
});

test('refused zero requests are made smaller, then sent as data', async () => {
  const blockSizes = { minimum: 1, preferred: 4096, maximum: MiB };
  const fussy = (most: number): Script => ({
    blockSizes,
    request: (request, _payload, server) => {
      if (request.type !== NBD_CMD.WRITE_ZEROES || request.length <= most) return false;
      server.answer(request, NBD_ERROR.EINVAL);
      return true;
    },
  });
  for (const most of [MiB, 0]) {
    const { target, server } = await openScripted(fussy(most));
    server.memory.fill(1);
    await target.writeZeroes(512, target.size - 1024, { hole: true });
    assert.ok(server.memory.subarray(512, -512).every((byte) => byte === 0));
    assert.equal(server.memory[511], 1);
    assert.equal(server.memory.at(-512), 1);
    target.destroy();
  }
});

test('fast zeroing fails with NOT_SUPPORTED if the server cannot do it', async () => {
  const { target } = await openScripted(
    scriptFor(NBD_CMD.WRITE_ZEROES, (request, _p, s) => (s.answer(request, NBD_ERROR.ENOTSUP), true)),
  );
  await assert.rejects(target.writeZeroes(0, 4096, { hole: true, fast: true }), { code: 'NOT_SUPPORTED' });
  target.destroy();
});

test('requests must fit the block sizes of the server', async () => {
  const { target } = await openScripted({
    blockSizes: { minimum: 4096, preferred: 4096, maximum: MiB },
    size: 2 ** 22 + 512,
  });
  assert.equal(target.size, 2 ** 22, 'the last half block cannot be reached');
  assert.equal(target.maximumPayload, MiB);
  await assert.rejects(target.write(512, Buffer.alloc(4096)), {
    name: 'RangeError',
    message: /multiples of 4096/,
  });
  await assert.rejects(target.write(0, Buffer.alloc(100)), {
    name: 'RangeError',
    message: /multiples of 4096/,
  });
  await assert.rejects(target.write(0, Buffer.alloc(MiB + 4096)), { name: 'RangeError', message: /at most/ });
  await target.trim(512, 4096);
  target.destroy();
});

test('zero extents are joined over descriptors and requests, and cut to the range', async () => {
  const { target } = await openScripted({
    size: 100_000,
    request: (request, _p, s) => {
      if (request.type !== NBD_CMD.BLOCK_STATUS) return false;
      // Short answers, and one that covers more than the requested range.
      s.answerStatus(
        request,
        request.offset < 20_000
          ? [
              { length: 10_000, flags: 2 },
              { length: 10_000, flags: 3 },
            ]
          : request.offset < 40_000
            ? [{ length: 20_000, flags: 1 }]
            : [{ length: 0xffffffff, flags: 2 }],
      );
      return true;
    },
  });
  const extents: unknown[] = [];
  for await (const extent of target.zeroExtents(0, 90_000)) extents.push(extent);
  assert.deepEqual(extents, [
    { offset: 0, length: 20_000 },
    { offset: 40_000, length: 50_000 },
  ]);
  target.destroy();
});

test('the error for a read-only or empty export has a hint', async () => {
  const { target } = await openScripted({ flags: NBD_FLAG.HAS_FLAGS | NBD_FLAG.READ_ONLY });
  assert.equal(target.readOnly, true);
  assert.match(target.advice ?? '', /chown nbd/);
  await assert.rejects(target.write(0, Buffer.alloc(512)), { code: 'TARGET_READ_ONLY', hint: /chown nbd/ });
  await assert.rejects(openScripted({ size: 0 }), { code: 'TARGET_TOO_SMALL', hint: /chown nbd/ });
  target.destroy();
});

test('a target without flush support reports it and sends no flush', async () => {
  const { target, server } = await openScripted({ flags: NBD_FLAG.HAS_FLAGS });
  assert.equal(target.abilities.flush, false);
  await target.flush();
  await target.trim(0, 4096);
  assert.equal(server.requests.length, 0);
  target.destroy();
});
