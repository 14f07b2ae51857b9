import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { KiB, MiB } from '../../base/bytes.ts';
import { NBD_CMD, NBD_CMD_FLAG } from '../protocol/constants.ts';
import { BackendError } from './backend.ts';
import { MemoryBudget } from './memory-budget.ts';
import {
  ask,
  clientFlags,
  connectTo,
  entered,
  go,
  memoryExports,
  MemoryBackend,
  type ScriptedClient,
  setAllocation,
  structuredReply,
  type Transfer,
} from '../../../test/helpers/scripted-nbd-client.ts';

const { READ, WRITE, DISC, FLUSH, TRIM, CACHE, WRITE_ZEROES, BLOCK_STATUS, RESIZE } = NBD_CMD;
const { FUA, DF, NO_HOLE, REQ_ONE, FAST_ZERO } = NBD_CMD_FLAG;

async function goodbye(client: Transfer): Promise<void> {
  client.send(ask(DISC, 0, 0));
  client.stream.end();
  await client.connection.done;
}

test('simple replies: written data is read back, and every command is answered', async () => {
  const backend = new MemoryBackend(4096);
  const client = await entered(memoryExports(backend), { structured: false });
  const read = Buffer.alloc(1024);
  client.data.set(3, read);
  client.send(
    ask(WRITE, 512, Buffer.alloc(512, 7), { cookie: 1 }),
    ask(WRITE, 2048, Buffer.alloc(512, 8), { cookie: 2, flags: FUA }),
    ask(READ, 512, 1024, { cookie: 3 }),
    ask(WRITE_ZEROES, 512, 256, { cookie: 4 }),
    ask(WRITE_ZEROES, 512, 256, { cookie: 5, flags: NO_HOLE | FAST_ZERO | FUA }),
    ask(TRIM, 2048, 512, { cookie: 6 }),
    ask(CACHE, 0, 4096, { cookie: 7 }),
    ask(FLUSH, 0, 0, { cookie: 8 }),
  );
  const replies = await client.answered(8);
  assert.deepEqual(
    replies.toSorted(),
    [1, 2, 3, 4, 5, 6, 7, 8].map((cookie) => `${cookie} ok`),
  );
  assert.ok(read.subarray(0, 512).every((byte) => byte === 7));
  assert.deepEqual(
    backend.calls.filter((call) => call !== 'flush'),
    [
      'write 512+512',
      'write 2048+512',
      'read 512+1024',
      'zero 512+256 hole',
      'zero 512+256 fast',
      'trim 2048+512',
    ],
  );
  assert.equal(backend.calls.filter((call) => call === 'flush').length, 3);
  await goodbye(client);
  assert.equal(backend.calls.at(-1), 'close');
});

test('structured reads: holes are sent as holes, unless the client wants one piece', async () => {
  const backend = new MemoryBackend(8192);
  backend.bytes.fill(5, 1024, 2048);
  const client = await entered(memoryExports(backend), { structured: true, allocation: true });
  client.data.set(1, Buffer.alloc(8192, 9)).set(2, Buffer.alloc(8192, 9));
  client.send(ask(READ, 512, 4096, { cookie: 1 }));
  await client.answered(1);
  client.send(ask(READ, 0, 8192, { cookie: 2, flags: DF }));
  await client.answered(2);
  client.send(ask(BLOCK_STATUS, 512, 4096, { cookie: 3 }));
  await client.answered(3);
  client.send(ask(BLOCK_STATUS, 512, 4096, { cookie: 4, flags: REQ_ONE }));
  await client.answered(4);
  client.send(ask(READ, 512, 0, { cookie: 5 }));
  assert.deepEqual(await client.answered(5), [
    '1 hole 512+512',
    '1 data 1024+1024',
    '1 hole 2048+2560',
    '2 data 0+8192',
    '3 status 512:3 1024:0 2560:3',
    '4 status 512:3',
  ]);
  assert.ok(client.data.get(2)!.equals(backend.bytes));
  await goodbye(client);
});

test('large structured reads arrive in pieces', async () => {
  const backend = new MemoryBackend(5 * MiB);
  backend.bytes.fill(1);
  const client = await entered(memoryExports(backend), { structured: true });
  client.data.set(1, Buffer.alloc(5 * MiB));
  client.send(ask(READ, 0, 5 * MiB));
  const pieces = await client.answered(1);
  assert.equal(pieces.length, 5);
  assert.ok(client.data.get(1)!.equals(backend.bytes));
  await goodbye(client);
});

test('each malformed request is refused with its own error, and the connection stays usable', async () => {
  const size = 40 * MiB;
  for (const structured of [false, true]) {
    const backend = new MemoryBackend(size);
    const client = await entered(memoryExports(backend), { structured });
    const cases: [Buffer, string][] = [
      [ask(RESIZE, 0, 0), 'NBD_EINVAL'],
      [ask(4711, 0, 512), 'NBD_EINVAL'],
      [ask(READ, size - 511, 512), 'NBD_EINVAL'],
      [ask(READ, Number.MAX_SAFE_INTEGER, 512), 'NBD_EINVAL'],
      [ask(READ, 0, 33 * MiB), structured ? 'NBD_EOVERFLOW' : 'NBD_EINVAL'],
      [ask(READ, 0, 512, { flags: NO_HOLE }), 'NBD_EINVAL'],
      [ask(WRITE, size - 511, Buffer.alloc(512, 1)), 'NBD_ENOSPC'],
      [ask(WRITE, 0, Buffer.alloc(33 * MiB, 1)), 'NBD_EINVAL'],
      [ask(WRITE, 0, Buffer.alloc(512, 1), { flags: 1 << 15 }), 'NBD_EINVAL'],
      [ask(WRITE_ZEROES, size, 1), 'NBD_ENOSPC'],
      [ask(WRITE_ZEROES, 0, 512, { flags: DF }), 'NBD_EINVAL'],
      [ask(TRIM, size, 1), 'NBD_EINVAL'],
      [ask(CACHE, size, 1), 'NBD_EINVAL'],
      [ask(BLOCK_STATUS, 0, 512), 'NBD_EINVAL'],
      [ask(FLUSH, 0, 0, { flags: REQ_ONE }), 'NBD_EINVAL'],
    ];
    if (!structured) cases.push([ask(READ, 0, 512, { flags: DF }), 'NBD_EINVAL']);
    for (const [index, [request, error]] of cases.entries()) {
      client.send(request);
      const replies = await client.answered(index + 1);
      assert.equal(replies.at(-1), `1 error ${error}`, `case ${index}`);
    }
    assert.deepEqual(backend.calls, []);
    await goodbye(client);
  }
});

test('a read-only export refuses writing commands', async () => {
  const backend = new MemoryBackend(4096);
  backend.readOnly = true;
  const client = await entered(memoryExports(backend), { structured: false });
  client.send(ask(WRITE, 0, Buffer.alloc(512, 1)), ask(WRITE_ZEROES, 0, 512), ask(TRIM, 0, 512));
  assert.deepEqual(await client.answered(3), Array(3).fill('1 error NBD_EPERM'));
  assert.deepEqual(backend.calls, []);
  await goodbye(client);
});

test('errors of the backend reach the client, and the connection stays usable', async () => {
  const backend = new MemoryBackend(2 * MiB);
  backend.bytes.fill(1);
  const client = await entered(memoryExports(backend), { structured: true });
  client.data.set(2, Buffer.alloc(2 * MiB));
  backend.before = (call) => {
    if (call.startsWith('write')) throw Object.assign(new Error('full'), { code: 'EDQUOT' });
    if (call.startsWith('zero')) throw new BackendError('ENOTSUP', 'slow');
    if (call === `read ${MiB}+${MiB}`) throw Object.assign(new Error('bad sector'), { code: 'EIO' });
    if (call === 'flush') return Promise.reject(new Error('lost'));
    return undefined;
  };
  client.send(ask(WRITE, 0, Buffer.alloc(512, 1)));
  await client.answered(1);
  client.send(ask(READ, 0, 2 * MiB, { cookie: 2 }));
  await client.answered(2);
  client.send(ask(WRITE_ZEROES, 0, 512, { flags: FAST_ZERO, cookie: 3 }));
  await client.answered(3);
  client.send(ask(FLUSH, 0, 0, { cookie: 4 }));
  assert.deepEqual(await client.answered(4), [
    '1 error NBD_ENOSPC',
    `2 data 0+${MiB}`,
    `2 error NBD_EIO at ${MiB}`,
    '3 error NBD_ENOTSUP',
    '4 error NBD_EIO',
  ]);
  await goodbye(client);
});

test('a slow request does not delay other requests', async () => {
  const backend = new MemoryBackend(4096);
  const client = await entered(memoryExports(backend), { structured: false });
  const slow = Promise.withResolvers<undefined>();
  backend.before = (call) => (call === 'write 0+512' ? slow.promise : undefined);
  client.send(ask(WRITE, 0, Buffer.alloc(512, 1), { cookie: 1 }), ask(TRIM, 512, 512, { cookie: 2 }));
  assert.deepEqual(await client.answered(1), ['2 ok']);
  slow.resolve(undefined);
  assert.deepEqual(await client.answered(2), ['2 ok', '1 ok']);
  await goodbye(client);
});

test('a client that does not read costs bounded memory, and gets all replies in the end', async () => {
  const backend = new MemoryBackend(MiB);
  backend.bytes.fill(3);
  const client = await entered(memoryExports(backend), { structured: false });
  client.stream.pause();
  const count = 400;
  for (let i = 0; i < count; i++) client.send(ask(READ, 0, 64 * KiB));
  for (let i = 0; i < 200; i++) await turn();
  const soFar = backend.calls.length;
  assert.ok(soFar * 64 * KiB <= 6 * MiB, `${soFar} reads`);
  let bytes = 0;
  await new Promise<void>((resolve) => {
    client.stream.on('data', (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes === count * (16 + 64 * KiB)) resolve();
    });
    client.stream.resume();
  });
  client.stream.destroy();
  await client.connection.done;
});

test('a large read is sent piece by piece as the client receives it, and an error ends the connection', async () => {
  const size = 24 * MiB;
  for (const [structured, failing] of [
    [false, false],
    [true, false],
    [false, true],
    [true, true],
  ] as const) {
    const backend = new MemoryBackend(size);
    for (let at = 0; at < size; at += 4096) backend.bytes.writeUInt32LE(at, at);
    const client = await entered(memoryExports(backend), { structured });
    if (failing)
      backend.before = (call) => {
        if (call.startsWith(`read ${20 * MiB}+`)) throw Object.assign(new Error('bad'), { code: 'EIO' });
      };
    const read = Buffer.alloc(size);
    client.data.set(2, read);
    client.stream.pause();
    client.send(ask(READ, 0, size, { cookie: 2, flags: structured ? DF : 0 }));
    client.send(ask(TRIM, 0, 512, { cookie: 3 }));
    for (let i = 0; i < 200; i++) await turn();
    const bytes = backend.calls.filter((call) => call.startsWith('read')).length * MiB;
    assert.ok(bytes <= 3 * MiB, `${bytes} bytes are read for a client that takes none`);
    client.stream.resume();
    if (failing) await assert.rejects(client.answered(2), /the server closed/);
    else {
      await client.answered(2);
      assert.ok(read.subarray(512).equals(backend.bytes.subarray(512)));
      assert.equal(client.replies.at(-1), '3 ok', 'no reply comes in between');
    }
    client.stream.destroy();
    await client.connection.done;
  }
});

test('clients that share too little memory take turns, and an inactive one is dropped', async () => {
  const budget = new MemoryBudget({ shared: 8 * MiB, own: 64 * KiB, patienceMs: 100 });
  const backend = new MemoryBackend(8 * MiB);
  const join = () => entered(memoryExports(backend), { structured: false }, { budget });
  const stuck = await join();
  stuck.send(ask(WRITE, 0, 8 * MiB), Buffer.alloc(MiB, 1));
  while (budget.used === 0) await turn();
  const clients = await Promise.all([join(), join(), join()]);
  for (const client of clients)
    client.send(...[1, 2, 3].map((cookie) => ask(WRITE, 0, Buffer.alloc(5 * MiB, cookie), { cookie })));
  for (const client of clients) await client.answered(3);
  await stuck.connection.done;
  for (const client of clients) await goodbye(client);
  assert.equal(budget.used, 0);
});

test('requests of a client that has disconnected are not executed', async () => {
  const backend = new MemoryBackend(MiB);
  const client = await entered(memoryExports(backend), { structured: false });
  client.stream.pause();
  client.send(Buffer.concat(Array.from({ length: 1000 }, () => ask(READ, 0, MiB))));
  while (backend.calls.length === 0) await turn();
  for (let i = 0; i < 20; i++) await turn();
  client.stream.destroy();
  await client.connection.done;
  assert.ok(backend.calls.length < 20, `${backend.calls.length} reads`);
});

test('slow writes are accepted up to a limit, and all of them in the end', async () => {
  const backend = new MemoryBackend(MiB);
  const client = await entered(memoryExports(backend), { structured: false });
  const slow = Promise.withResolvers<undefined>();
  backend.before = () => slow.promise;
  const payload = Buffer.alloc(256 * KiB, 1);
  for (let i = 0; i < 200; i++) client.send(ask(WRITE, 0, payload));
  for (let i = 0; i < 200; i++) await turn();
  assert.ok(backend.calls.length <= 17, `${backend.calls.length} writes`);
  slow.resolve(undefined);
  await client.answered(200);
  await goodbye(client);
});

test('a stop finishes the requests in progress, makes them durable, and closes', async () => {
  const backend = new MemoryBackend(4096);
  const client = await entered(memoryExports(backend), { structured: false });
  const slow = Promise.withResolvers<undefined>();
  backend.before = (call) => (call.startsWith('write') ? slow.promise : undefined);
  client.send(ask(WRITE, 0, Buffer.alloc(512, 1)));
  while (backend.calls.length === 0) await turn();
  client.connection.stop();
  slow.resolve(undefined);
  assert.deepEqual(await client.answered(1), ['1 ok']);
  client.stream.end();
  await client.connection.done;
  assert.deepEqual(backend.calls, ['write 0+512', 'flush', 'close']);
});

test('a connection that breaks within a payload writes none of it', async () => {
  const backend = new MemoryBackend(4096);
  const client = await entered(memoryExports(backend), { structured: false });
  client.send(ask(WRITE, 0, Buffer.alloc(1024, 1)).subarray(0, 700));
  await turn();
  client.stream.destroy();
  await client.connection.done;
  assert.deepEqual(backend.calls, ['close']);
});

test('the backend is closed after the last request, for every end of the connection', async () => {
  const requests = Buffer.concat([ask(TRIM, 0, 512), ask(FLUSH, 0, 0), ask(WRITE_ZEROES, 512, 512)]);
  const begun = Buffer.concat([clientFlags, go('disk'), requests]);
  const garbage = Buffer.alloc(64, 0xee);
  const endings: Record<string, (client: ScriptedClient) => void> = {
    'garbage in one piece with the handshake': () => undefined,
    garbage: (client) => client.send(garbage),
    disconnect: (client) => client.send(ask(DISC, 0, 0)),
    end: (client) => client.stream.end(),
    cut: (client) => client.stream.destroy(),
    stop: (client) => client.connection.stop(),
    'stop, then cut': (client) => {
      client.connection.stop();
      client.stream.destroy();
    },
  };
  for (const [name, end] of Object.entries(endings)) {
    const backend = new MemoryBackend(4096);
    const slow = Promise.withResolvers<undefined>();
    let running = 0;
    backend.before = async () => {
      running++;
      await slow.promise;
      running--;
    };
    let runningAtClose: number | undefined;
    backend.close = () => {
      runningAtClose = running;
    };
    const client = connectTo(memoryExports(backend));
    client.send(name.startsWith('garbage in') ? Buffer.concat([begun, garbage]) : begun);
    while (backend.calls.length < 3) await turn();
    end(client);
    for (let i = 0; i < 20; i++) await turn();
    assert.equal(runningAtClose, undefined, `${name}: closed while requests ran`);
    slow.resolve(undefined);
    client.stream.on('end', () => client.stream.end());
    await client.connection.done;
    assert.equal(runningAtClose, 0, name);
  }
});

test('a conversation is the same for every split of its bytes', async () => {
  const conversation = Buffer.concat([
    clientFlags,
    structuredReply,
    setAllocation('disk'),
    go('disk'),
    ask(WRITE, 100, Buffer.from('some payload'), { cookie: 1 }),
    ask(READ, 0, 600, { cookie: 2 }),
    ask(BLOCK_STATUS, 0, 4096, { cookie: 3 }),
    ask(WRITE, 4095, Buffer.from('past the end'), { cookie: 4 }),
    ask(WRITE_ZEROES, 100, 3, { cookie: 5 }),
    ask(READ, 100, 12, { cookie: 6, flags: DF }),
    ask(DISC, 0, 0),
  ]);
  const talk = async (chunks: Buffer[]): Promise<string> => {
    const client = connectTo(memoryExports(new MemoryBackend(4096)));
    for (const chunk of chunks) {
      client.send(chunk);
      await turn();
    }
    client.stream.end();
    await client.connection.done;
    return client.received().toString('hex');
  };
  const expected = await talk([conversation]);
  assert.ok(expected.includes(Buffer.from('some payload').toString('hex')));
  for (let at = 1; at < conversation.length; at++)
    assert.equal(await talk([conversation.subarray(0, at), conversation.subarray(at)]), expected, `at ${at}`);
});

test('garbage requests only end their own connection', async () => {
  const request = fc
    .tuple(fc.nat(9), fc.nat(63), fc.nat(5000), fc.nat(300))
    .map(([type, flags, offset, length]) => ask(type, offset, length, { flags }));
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.oneof(request, fc.uint8Array({ maxLength: 60 })), { maxLength: 10 }),
      async (parts) => {
        const client = connectTo(memoryExports(new MemoryBackend(4096)));
        client.send(clientFlags, structuredReply, setAllocation('disk'), go('disk'), ...parts);
        client.stream.end();
        await client.connection.done;
      },
    ),
    { numRuns: 150 },
  );
});
