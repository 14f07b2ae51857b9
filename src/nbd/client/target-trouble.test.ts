/** Tests a target whose server reports errors, violates the protocol, stops answering or disconnects. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { openScripted, scriptFor } from '../../../test/helpers/scripted-target.ts';
import type { AgentError } from '../../base/errors.ts';
import { NBD_CMD, NBD_ERROR, NBD_REPLY_FLAG } from '../protocol/constants.ts';
import { encodeErrorChunk } from '../protocol/reply.ts';
import type { Script } from '../../../test/helpers/scripted-nbd-server.ts';

test('errors of the server become error codes, and the connection stays usable', async () => {
  let error = 0;
  const { target } = await openScripted({
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

test('NBD_ESHUTDOWN ends the connection with an error that can be retried', async () => {
  const { target, server } = await openScripted(
    scriptFor(NBD_CMD.WRITE, (request, _payload, s) => {
      if (s.requests.length === 3) s.answer(request, NBD_ERROR.ESHUTDOWN);
      return true;
    }),
  );
  const writes = [1, 2, 3].map((i) => target.write(i * 512, Buffer.alloc(512)));
  for (const write of writes) await assert.rejects(write, { code: 'NBD_CONNECTION_LOST' });
  await assert.rejects(target.flush(), { code: 'NBD_CONNECTION_LOST' });
  assert.ok(server.requests.length >= 3);
});

test('a protocol violation ends the connection and all outstanding requests', async () => {
  const half = Buffer.alloc(2048, 1);
  const wrong: [string, number, NonNullable<Script['request']>][] = [
    ['no magic', NBD_CMD.READ, (_r, _p, s) => (s.say(Buffer.from('sixteen bytes without a reply')), true)],
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
    const { target, server } = await openScripted({
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

test('a simple reply to a read is refused if structured replies were negotiated', async () => {
  const { target } = await openScripted(
    scriptFor(NBD_CMD.READ, (r, _p, s) => {
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

test('garbage after any request causes neither a hang nor a crash', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('', '67446698', '668e33ef', '668e33ef00010001'),
      fc.uint8Array({ minLength: 1, maxLength: 60 }),
      async (magic, bytes) => {
        const { target } = await openScripted(
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

test('a silent server loses the connection, but not while no request is outstanding', async () => {
  const { target } = await openScripted(
    scriptFor(NBD_CMD.WRITE, () => true),
    { timeoutMs: 40 },
  );
  await new Promise((resolve) => setTimeout(resolve, 120));
  assert.equal((await target.read(0, 512)).length, 512);
  const read = target.read(0, 512);
  // This process is blocked for longer than the time limit, and the answer has arrived when it continues.
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 80);
  await read;
  const first = target.write(0, Buffer.alloc(512));
  await assert.rejects(first, { code: 'NBD_CONNECTION_LOST', message: /made no progress for \d+ ms/ });
});

test('a flush may take longer than a write', async () => {
  const { target } = await openScripted(
    scriptFor(NBD_CMD.FLUSH, (request, _p, s) => {
      setTimeout(() => s.answer(request), 250);
      return true;
    }),
    { timeoutMs: 100 },
  );
  await target.flush();
  await target.close();
});

test('the end of the connection rejects outstanding and later requests', async () => {
  const { target } = await openScripted(scriptFor(NBD_CMD.WRITE, (_r, _p, s) => (s.hangUp(), true)));
  const writes = [0, 1].map((i) => target.write(i * 512, Buffer.alloc(512)));
  for (const write of writes)
    await assert.rejects(write, { code: 'NBD_CONNECTION_LOST', message: /2 outstanding requests/ });
  await assert.rejects(target.flush(), { code: 'NBD_CONNECTION_LOST' });
  await target.close();
});

test('an abort signal and destroy end all requests with CANCELLED', async () => {
  const cancel = new AbortController();
  const silent = scriptFor(NBD_CMD.WRITE, () => true);
  const first = await openScripted(silent, { signal: cancel.signal });
  const write = first.target.write(0, Buffer.alloc(512));
  cancel.abort();
  await assert.rejects(write, { code: 'CANCELLED' });
  const second = await openScripted(silent);
  const other = second.target.write(0, Buffer.alloc(512));
  second.target.destroy();
  await assert.rejects(other, { code: 'CANCELLED' });
  assert.ok(second.server.client.destroyed);
});
