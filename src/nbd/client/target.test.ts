import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { MiB } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import { targetContract } from '../../block/target.contract.ts';
import { NBD_CMD, NBD_CMD_FLAG, NBD_ERROR, NBD_FLAG, NBD_REPLY_FLAG } from '../protocol/constants.ts';
import { encodeErrorChunk } from '../protocol/reply.ts';
import { openTarget } from './connect.ts';
import { runHandshake } from './handshake.ts';
import { negotiateExport } from './negotiate.ts';
import { type Script, ScriptedServer } from './scripted-server.ts';
import type { NbdTarget } from './target.ts';
import { transportOver } from './transport.ts';
import { parseNbdUri } from './uri.ts';

const address = parseNbdUri('nbd://scripted');

async function open(
  script: Script = {},
  options: { timeoutMs?: number; signal?: AbortSignal } = {},
): Promise<{ target: NbdTarget; server: ScriptedServer }> {
  const server = new ScriptedServer(script);
  const peer = { name: 'nbd://scripted/', exportName: '', tls: false };
  const { value, transport, takeRest } = await runHandshake(
    transportOver(server.client),
    negotiateExport(peer),
    { name: peer.name, timeoutMs: 5000 },
  );
  return { target: openTarget(address, transport, takeRest, value, options), server };
}

for (const [name, script] of [
  ['structured replies', {}],
  ['simple replies', { structured: false }],
  ['oldstyle', { style: 'oldstyle' }],
  ['EXPORT_NAME with zeroes, bytes in sevens', { style: 'newstyle', noZeroes: false, split: 7777 }],
  ['block sizes', { blockSizes: { minimum: 4096, preferred: 65536, maximum: MiB } }],
  ['no zeroing', { flags: NBD_FLAG.HAS_FLAGS }],
] as [string, Script][])
  targetContract(`NBD, ${name}`, async () => {
    const { target } = await open({ size: 2 ** 22, ...script });
    return {
      target,
      close: () => {
        target.destroy();
        return Promise.resolve();
      },
    };
  });

/** A request that the scripted server answers with something of its own. */
function script(command: number, answer: NonNullable<Script['request']>): Script {
  return {
    request: (request, payload, server) => request.type === command && answer(request, payload, server),
  };
}

test('replies may come in any order, reads in scattered chunks', async () => {
  const waiting: (() => void)[] = [];
  const { target, server } = await open(
    script(NBD_CMD.READ, (request, _payload, s) => {
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

test('errors of the server become codes, and the connection lives on', async () => {
  let error = 0;
  const { target } = await open({
    request: (request, _payload, server) => {
      if (error !== 0) server.answer(request, error);
      return error !== 0;
    },
  });
  const data = Buffer.alloc(512);
  for (const [errno, code, name] of [
    [NBD_ERROR.ENOSPC, 'TARGET_FULL', 'NBD_ENOSPC'],
    [NBD_ERROR.EPERM, 'TARGET_READ_ONLY', 'NBD_EPERM'],
    [30, 'TARGET_READ_ONLY', 'EROFS'],
    [NBD_ERROR.EIO, 'TARGET_WRITE_ERROR', 'NBD_EIO'],
    [4711, 'TARGET_WRITE_ERROR', '4711'],
  ] as const) {
    error = errno;
    await assert.rejects(target.write(1024, data), {
      code,
      message: new RegExp(`${name}.*NBD_CMD_WRITE of 512 bytes at 1024: as scripted`),
    });
    await assert.rejects(target.flush(), { code });
  }
  error = NBD_ERROR.EIO;
  await assert.rejects(target.read(0, 512), { code: 'NBD_SERVER_ERROR' });
  const nothing: unknown[] = [];
  for await (const extent of target.zeroExtents(0, target.size)) nothing.push(extent);
  assert.deepEqual(nothing, [], 'a server that cannot tell knows nothing to be zero');
  error = 0;
  await target.write(0, data);
  await target.close();
});

test('NBD_ESHUTDOWN loses the connection in a way that may be tried again', async () => {
  const { target, server } = await open(
    script(NBD_CMD.WRITE, (request, _payload, s) => {
      if (s.requests.length === 3) s.answer(request, NBD_ERROR.ESHUTDOWN);
      return true;
    }),
  );
  const writes = [1, 2, 3].map((i) => target.write(i * 512, Buffer.alloc(512)));
  for (const write of writes) await assert.rejects(write, { code: 'NBD_CONNECTION_LOST' });
  await assert.rejects(target.flush(), { code: 'NBD_CONNECTION_LOST' });
  assert.ok(server.requests.length >= 3);
});

test('what the protocol does not allow ends the connection and everything under way', async () => {
  const half = Buffer.alloc(2048, 1);
  const wrong: [string, number, NonNullable<Script['request']>][] = [
    ['no magic', NBD_CMD.READ, (_r, _p, s) => (s.say(Buffer.from('what is this, no reply at all')), true)],
    ['unknown cookie', NBD_CMD.READ, (r, _p, s) => (s.answer({ ...r, cookieHigh: 99 }), true)],
    ['unknown slot', NBD_CMD.READ, (r, _p, s) => (s.answer({ ...r, cookieLow: 99 }), true)],
    ['outside', NBD_CMD.READ, (r, _p, s) => (s.answerData(r, r.offset + 2049, half, true), true)],
    ['before', NBD_CMD.READ, (r, _p, s) => (s.answerData(r, r.offset - 1, half, true), true)],
    ['too long', NBD_CMD.READ, (r, _p, s) => (s.answerData(r, r.offset, Buffer.alloc(4097), true), true)],
    ['hole outside', NBD_CMD.READ, (r, _p, s) => (s.answerHole(r, r.offset, 4097, true), true)],
    ['too little', NBD_CMD.READ, (r, _p, s) => (s.answerData(r, r.offset, half, true), true)],
    ['nothing', NBD_CMD.READ, (r, _p, s) => (s.answer(r), true)],
    [
      'twice the same',
      NBD_CMD.READ,
      (r, _p, s) => {
        s.answerData(r, r.offset, half, false);
        s.answerData(r, r.offset + 1024, half, true);
        return true;
      },
    ],
    ['answered twice', NBD_CMD.TRIM, (r, _p, s) => (s.answer(r), s.answer(r), true)],
    ['data for a write', NBD_CMD.WRITE, (r, _p, s) => (s.answerData(r, r.offset, half, true), true)],
    ['status for a read', NBD_CMD.READ, (r, _p, s) => (s.answerStatus(r, [{ length: 1, flags: 0 }]), true)],
    [
      'foreign context',
      NBD_CMD.BLOCK_STATUS,
      (r, _p, s) => (s.answerStatus(r, [{ length: 1, flags: 0 }], 5), true),
    ],
    ['no status', NBD_CMD.BLOCK_STATUS, (r, _p, s) => (s.answer(r), true)],
    [
      'error 0',
      NBD_CMD.READ,
      (r, _p, s) => (s.say(encodeErrorChunk(NBD_REPLY_FLAG.DONE, r.cookieHigh, r.cookieLow, 0, '')), true),
    ],
  ];
  for (const [what, command, answer] of wrong) {
    const { target, server } = await open({
      request: (request, payload, s) => {
        if (request.type === NBD_CMD.FLUSH) return true;
        return request.type === command && answer(request, payload, s);
      },
    });
    const flush = target.flush();
    const victim =
      command === NBD_CMD.READ
        ? target.read(8192, 4096)
        : command === NBD_CMD.BLOCK_STATUS
          ? target.zeroExtents(0, 4096).next()
          : command === NBD_CMD.TRIM
            ? target.trim(0, 4096)
            : target.write(8192, Buffer.alloc(4096));
    const outcomes = await Promise.allSettled([flush, victim]);
    assert.equal(outcomes[0].status, 'rejected', what);
    for (const outcome of outcomes)
      if (outcome.status === 'rejected')
        assert.equal((outcome.reason as AgentError).code, 'NBD_PROTOCOL', what);
    assert.ok(server.client.destroyed, what);
    await assert.rejects(target.write(0, Buffer.alloc(512)), { code: 'NBD_PROTOCOL' }, what);
  }
});

test('a simple reply to a read is refused after structured ones were agreed', async () => {
  const { target } = await open(
    script(NBD_CMD.READ, (r, _p, s) => {
      const head = Buffer.alloc(16 + r.length);
      head.writeUInt32BE(0x67446698, 0);
      head.writeUInt32BE(r.cookieHigh, 8);
      head.writeUInt32BE(r.cookieLow, 12);
      s.say(head);
      return true;
    }),
  );
  await assert.rejects(target.read(0, 512), { code: 'NBD_PROTOCOL' });
});

test('garbage after any request never hangs and never crashes', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('', '67446698', '668e33ef', '668e33ef00010001'),
      fc.uint8Array({ minLength: 1, maxLength: 60 }),
      async (magic, bytes) => {
        const { target } = await open(
          {
            request: (_r, _p, s) => {
              s.say(Buffer.concat([Buffer.from(magic, 'hex'), bytes]));
              s.hangUp();
              return true;
            },
          },
          { timeoutMs: 1000 },
        );
        await assert.rejects(target.read(0, 512), (error: AgentError) =>
          ['NBD_PROTOCOL', 'NBD_CONNECTION_LOST'].includes(error.code),
        );
      },
    ),
    { numRuns: 60 },
  );
});

test('silence loses the connection, but not while there is nothing to wait for', async () => {
  const { target } = await open(
    script(NBD_CMD.WRITE, () => true),
    { timeoutMs: 40 },
  );
  await new Promise((resolve) => setTimeout(resolve, 120));
  assert.equal((await target.read(0, 512)).length, 512);
  const read = target.read(0, 512);
  // This process is held up for longer than the time-out, the answer is there when it goes on.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 80);
  await read;
  const first = target.write(0, Buffer.alloc(512));
  await assert.rejects(first, { code: 'NBD_CONNECTION_LOST', message: /silent for \d+ ms/ });
});

test('a flush may take longer than a write', async () => {
  const { target } = await open(
    script(NBD_CMD.FLUSH, (request, _p, s) => {
      setTimeout(() => s.answer(request), 250);
      return true;
    }),
    { timeoutMs: 100 },
  );
  await target.flush();
  await target.close();
});

test('the end of the connection rejects what is under way and what comes after', async () => {
  const { target } = await open(script(NBD_CMD.WRITE, (_r, _p, s) => (s.hangUp(), true)));
  const writes = [0, 1].map((i) => target.write(i * 512, Buffer.alloc(512)));
  for (const write of writes)
    await assert.rejects(write, { code: 'NBD_CONNECTION_LOST', message: /2 requests under way/ });
  await assert.rejects(target.flush(), { code: 'NBD_CONNECTION_LOST' });
  await target.close();
});

test('an abort signal and destroy end everything as CANCELLED', async () => {
  const cancel = new AbortController();
  const silent = script(NBD_CMD.WRITE, () => true);
  const first = await open(silent, { signal: cancel.signal });
  const write = first.target.write(0, Buffer.alloc(512));
  cancel.abort();
  await assert.rejects(write, { code: 'CANCELLED' });
  const second = await open(silent);
  const other = second.target.write(0, Buffer.alloc(512));
  second.target.destroy();
  await assert.rejects(other, { code: 'CANCELLED' });
  assert.ok(second.server.client.destroyed);
});

test('zeroes go out in pieces, with the flags that were asked for', async () => {
  const { target, server } = await open({ size: 3 * 2 ** 20 });
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

test('zero requests that are refused are made smaller, then sent as data', async () => {
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
    const { target, server } = await open(fussy(most));
    server.memory.fill(1);
    await target.writeZeroes(512, target.size - 1024, { hole: true });
    assert.ok(server.memory.subarray(512, -512).every((byte) => byte === 0));
    assert.equal(server.memory[511], 1);
    assert.equal(server.memory.at(-512), 1);
    target.destroy();
  }
});

test('fast zeroing says when it cannot', async () => {
  const { target } = await open(
    script(NBD_CMD.WRITE_ZEROES, (request, _p, s) => (s.answer(request, NBD_ERROR.ENOTSUP), true)),
  );
  await assert.rejects(target.writeZeroes(0, 4096, { hole: true, fast: true }), { code: 'NOT_SUPPORTED' });
  target.destroy();
});

test('requests are held to the server’s block sizes', async () => {
  const { target } = await open({
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
  const { target } = await open({
    size: 100_000,
    request: (request, _p, s) => {
      if (request.type !== NBD_CMD.BLOCK_STATUS) return false;
      // Short answers, and one that says more than was asked for.
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

test('a read-only or empty export is told with what to do', async () => {
  const { target } = await open({ flags: NBD_FLAG.HAS_FLAGS | NBD_FLAG.READ_ONLY });
  assert.equal(target.readOnly, true);
  assert.match(target.advice ?? '', /chown nbd/);
  await assert.rejects(target.write(0, Buffer.alloc(512)), { code: 'TARGET_READ_ONLY', hint: /chown nbd/ });
  await assert.rejects(open({ size: 0 }), { code: 'TARGET_TOO_SMALL', hint: /chown nbd/ });
  target.destroy();
});

test('a target that cannot flush says so and does not ask', async () => {
  const { target, server } = await open({ flags: NBD_FLAG.HAS_FLAGS });
  assert.equal(target.abilities.flush, false);
  await target.flush();
  await target.trim(0, 4096);
  assert.equal(server.requests.length, 0);
  target.destroy();
});
