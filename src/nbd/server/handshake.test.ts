import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import { test } from 'node:test';
import fc from 'fast-check';
import { NBD_FLAG, NBD_INFO, NBD_OPT, NBD_REP, optionReplyName } from '../protocol/constants.ts';
import { encodeClientFlags, encodeOption } from '../protocol/handshake.ts';
import type { ExportProvider } from './backend.ts';
import {
  decodeInfoReply,
  decodeListedExport,
  encodeInfoRequest,
  encodeMetaContextRequest,
} from '../protocol/options.ts';
import {
  answers,
  clientFlags,
  connectTo,
  go,
  greeted,
  memoryExports,
  MemoryBackend,
  type ScriptedClient,
  setAllocation,
  structuredReply,
} from '../../../test/helpers/scripted-nbd-client.ts';

function memory(): { backend: MemoryBackend; exports: ReturnType<typeof memoryExports> } {
  const backend = new MemoryBackend(4096);
  return { backend, exports: memoryExports(backend) };
}

/** Sends one option and returns the name of the last reply. */
async function outcome(client: ScriptedClient, option: Uint8Array): Promise<string> {
  client.send(option);
  return optionReplyName((await answers(client)).at(-1)?.type ?? 0);
}

test('GO returns size, flags and block sizes, and the requested information', async () => {
  const { exports } = memory();
  const client = await greeted(exports);
  client.send(structuredReply);
  await answers(client);
  client.send(go('', [NBD_INFO.NAME, NBD_INFO.DESCRIPTION, 4711]));
  const replies = await answers(client);
  assert.deepEqual(
    replies.slice(0, -1).map(({ data }) => decodeInfoReply(data)),
    [
      {
        type: NBD_INFO.EXPORT,
        size: 4096,
        flags:
          NBD_FLAG.HAS_FLAGS |
          NBD_FLAG.SEND_FLUSH |
          NBD_FLAG.SEND_FUA |
          NBD_FLAG.SEND_TRIM |
          NBD_FLAG.SEND_WRITE_ZEROES |
          NBD_FLAG.SEND_DF |
          NBD_FLAG.CAN_MULTI_CONN |
          NBD_FLAG.SEND_CACHE |
          NBD_FLAG.SEND_FAST_ZERO,
      },
      { type: NBD_INFO.BLOCK_SIZE, minimum: 1, preferred: 4096, maximum: 2 ** 25 },
      { type: NBD_INFO.NAME, name: 'disk' },
      { type: NBD_INFO.DESCRIPTION, description: 'in memory' },
    ],
  );
  client.stream.destroy();
  await client.connection.done;
});

test('a read-only export has the read-only flag and offers no writing command', async () => {
  const { backend, exports } = memory();
  backend.readOnly = true;
  const client = await greeted(exports);
  client.send(go('disk'));
  const [info] = await answers(client);
  const { flags } = decodeInfoReply(info!.data) as { flags: number };
  assert.ok((flags & NBD_FLAG.READ_ONLY) !== 0);
  assert.equal(flags & (NBD_FLAG.SEND_TRIM | NBD_FLAG.SEND_WRITE_ZEROES | NBD_FLAG.SEND_FAST_ZERO), 0);
  client.stream.destroy();
});

test('EXPORT_NAME answers with or without padding, and closes the connection for an unknown export', async () => {
  for (const [flags, bytes] of [
    [3, 10],
    [1, 134],
  ] as const) {
    const client = connectTo(memory().exports);
    await client.take(18);
    client.send(encodeClientFlags(flags), encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from('disk')));
    const reply = await client.take(bytes);
    assert.equal(reply.readBigUInt64BE(0), 4096n);
    client.stream.end();
    await client.connection.done;
    assert.equal(client.received().length, 0);
  }
  const client = await greeted(memory().exports);
  client.send(encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from('nothing')));
  await assert.rejects(client.take(1), /closed after 0/);
});

test('LIST names the exports, ABORT is acknowledged', async () => {
  const client = await greeted(memory().exports);
  client.send(encodeOption(NBD_OPT.LIST));
  const [listed] = await answers(client);
  assert.deepEqual(decodeListedExport(listed!.data), { name: 'disk', description: 'in memory' });
  client.send(encodeOption(NBD_OPT.ABORT, Buffer.from('goodbye')));
  assert.deepEqual(
    (await answers(client)).map(({ type }) => type),
    [NBD_REP.ACK],
  );
  client.stream.end();
  await client.connection.done;
});

test('each refused option gets its own error, and the next option may still succeed', async () => {
  const { exports } = memory();
  const client = await greeted(exports);
  const info = (name: string): Buffer =>
    encodeOption(NBD_OPT.INFO, encodeInfoRequest({ name, requests: [] }));
  for (const [option, expected] of [
    [go('nothing'), 'NBD_REP_ERR_UNKNOWN'],
    [go('refused'), 'NBD_REP_ERR_POLICY'],
    [info('nothing'), 'NBD_REP_ERR_UNKNOWN'],
    [info('disk'), 'NBD_REP_ACK'],
    [encodeOption(NBD_OPT.GO, Buffer.from([0, 0, 0, 9, 1])), 'NBD_REP_ERR_INVALID'],
    [encodeOption(NBD_OPT.GO), 'NBD_REP_ERR_INVALID'],
    [encodeOption(NBD_OPT.LIST, Buffer.from('x')), 'NBD_REP_ERR_INVALID'],
    [encodeOption(NBD_OPT.STARTTLS), 'NBD_REP_ERR_POLICY'],
    [encodeOption(NBD_OPT.EXTENDED_HEADERS), 'NBD_REP_ERR_UNSUP'],
    [encodeOption(NBD_OPT.PEEK_EXPORT), 'NBD_REP_ERR_UNSUP'],
    [encodeOption(4711, Buffer.alloc(100)), 'NBD_REP_ERR_UNSUP'],
    [encodeOption(NBD_OPT.LIST, Buffer.alloc(300_000)), 'NBD_REP_ERR_TOO_BIG'],
    [setAllocation('disk'), 'NBD_REP_ERR_INVALID'],
    [encodeOption(NBD_OPT.STRUCTURED_REPLY, Buffer.from('x')), 'NBD_REP_ERR_INVALID'],
    [structuredReply, 'NBD_REP_ACK'],
    [setAllocation('nothing'), 'NBD_REP_ERR_UNKNOWN'],
    [setAllocation('disk'), 'NBD_REP_ACK'],
    [go('disk'), 'NBD_REP_ACK'],
  ] as const)
    assert.equal(await outcome(client, option), expected);
  client.stream.destroy();
});

test('metadata contexts: wildcards list, exact names select, others are ignored', async () => {
  const client = await greeted(memory().exports);
  client.send(structuredReply);
  await answers(client);
  const count = async (option: number, queries: string[]): Promise<number> => {
    client.send(encodeOption(option, encodeMetaContextRequest({ name: 'disk', queries })));
    return (await answers(client)).length - 1;
  };
  const { LIST_META_CONTEXT, SET_META_CONTEXT } = NBD_OPT;
  assert.equal(await count(LIST_META_CONTEXT, []), 1);
  assert.equal(await count(LIST_META_CONTEXT, ['base:']), 1);
  assert.equal(await count(LIST_META_CONTEXT, ['base:other', 'qemu:']), 0);
  assert.equal(await count(SET_META_CONTEXT, []), 0);
  assert.equal(await count(SET_META_CONTEXT, ['base:']), 0);
  assert.equal(await count(SET_META_CONTEXT, ['x-y:z', 'base:allocation', 'base:allocation']), 1);
  client.stream.destroy();
});

test('if TLS is configured, nothing else is answered before TLS', async () => {
  const client = await greeted(memory().exports, { startTls: () => Promise.reject(new Error('not here')) });
  for (const option of [go('disk'), encodeOption(NBD_OPT.LIST), structuredReply, setAllocation('disk')])
    assert.equal(await outcome(client, option), 'NBD_REP_ERR_TLS_REQD');
  assert.equal(
    await outcome(client, encodeOption(NBD_OPT.STARTTLS, Buffer.from('x'))),
    'NBD_REP_ERR_INVALID',
  );
  client.send(encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from('disk')));
  await assert.rejects(client.take(1), /closed/);
  await client.connection.done;
});

test('plain bytes after STARTTLS end the connection', async () => {
  let started = false;
  const client = await greeted(memory().exports, {
    startTls: (wire) => {
      started = true;
      return Promise.resolve(wire);
    },
  });
  client.send(Buffer.concat([encodeOption(NBD_OPT.STARTTLS), structuredReply]));
  await client.connection.done;
  assert.equal(started, false);
});

test('terms that were negotiated before TLS are discarded', async () => {
  const client = await greeted(memory().exports, { startTls: (wire) => Promise.resolve(wire) });
  client.send(encodeOption(NBD_OPT.STARTTLS));
  await answers(client);
  assert.equal(await outcome(client, setAllocation('disk')), 'NBD_REP_ERR_INVALID');
  assert.equal(await outcome(client, encodeOption(NBD_OPT.STARTTLS)), 'NBD_REP_ERR_INVALID');
  client.stream.destroy();
});

test('unknown client flags, wrong magics and too many options end the connection', async () => {
  const strange = connectTo(memory().exports);
  strange.send(encodeClientFlags(1 << 7));
  await strange.connection.done;
  const wrong = await greeted(memory().exports);
  wrong.send(Buffer.alloc(16, 'x'));
  await wrong.connection.done;
  const endless = await greeted(memory().exports);
  for (let i = 0; i < 300; i++) endless.send(encodeOption(NBD_OPT.LIST));
  await endless.connection.done;
});

test('a client that chooses no export in time is dropped', async () => {
  const client = connectTo(memory().exports, { handshakeTimeoutMs: 20 });
  await client.connection.done;
  assert.equal(client.received().length, 18);
});

test('a stop ends a handshake at once', async () => {
  const client = await greeted(memory().exports);
  client.connection.stop();
  await client.connection.done;
});

test('replies to options wait for a client that does not read them', async () => {
  const names = Array.from({ length: 3000 }, (_, i) => ({ name: `image${i}`, description: 'x'.repeat(100) }));
  let listed = 0;
  const exports: ExportProvider = {
    ...memoryExports(new MemoryBackend(4096)),
    list: () => {
      listed++;
      return names;
    },
  };
  const client = await greeted(exports);
  client.stream.pause();
  for (let i = 0; i < 200; i++) client.send(encodeOption(NBD_OPT.LIST));
  for (let i = 0; i < 300; i++) await turn();
  assert.equal(listed, 1, 'the first list is not taken yet');
  client.stream.destroy();
  await client.connection.done;
});

test('garbage only ends its own connection', async () => {
  const option = fc
    .tuple(fc.constantFrom(...Object.values(NBD_OPT), 99), fc.uint8Array({ maxLength: 40 }))
    .map(([number, data]) => encodeOption(number, data));
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 100 }),
    option,
    fc.constant(structuredReply),
    fc.constant(go('disk')),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(noise, { maxLength: 8 }), fc.boolean(), async (parts, polite) => {
      const client = connectTo(memory().exports, { handshakeTimeoutMs: 1000 });
      if (polite) client.send(clientFlags);
      client.send(...parts);
      client.stream.end();
      await client.connection.done;
    }),
    { numRuns: 150 },
  );
});
