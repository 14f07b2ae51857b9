import assert from 'node:assert/strict';
import { duplexPair } from 'node:stream';
import { test } from 'node:test';
import fc from 'fast-check';
import { AgentError } from '../../base/errors.ts';
import { NBD_OPT, NBD_REP } from '../protocol/constants.ts';
import { encodeOptionReply } from '../protocol/handshake.ts';
import { runHandshake } from './handshake.ts';
import { type Negotiated, type Peer, negotiateExport, negotiateInfo, negotiateList } from './negotiate.ts';
import { type Script, ScriptedServer } from '../../../test/helpers/scripted-nbd-server.ts';
import { transportOver } from './transport.ts';

const peer: Peer = { name: 'nbd://test', exportName: '', tls: false };

async function shake(
  script: Script,
  who: Partial<Peer> = {},
  timeoutMs = 5000,
): Promise<{ agreed: Negotiated; server: ScriptedServer }> {
  const server = new ScriptedServer(script);
  const negotiation = negotiateExport({ ...peer, ...who });
  const { value } = await runHandshake(transportOver(server.client), negotiation, {
    name: peer.name,
    timeoutMs,
    upgrade: () => Promise.reject(new AgentError('NBD_TLS', 'the upgrade was reached')),
  });
  server.client.destroy();
  return { agreed: value, server };
}

const refuse =
  (which: number, type: number) =>
  (option: number): Buffer | undefined =>
    option === which ? encodeOptionReply(option, type, Buffer.from('so there')) : undefined;

test('every handshake style is understood, for any size of the received pieces', async () => {
  for (const style of ['oldstyle', 'newstyle', 'fixed newstyle'] as const)
    for (const noZeroes of [true, false])
      for (const split of [1, 2, 3, 7, 1000]) {
        const { agreed } = await shake({ style, noZeroes, split, size: 12345 });
        assert.equal(agreed.style, style);
        assert.equal(agreed.size, 12345);
        assert.equal(agreed.structured, style === 'fixed newstyle');
        assert.equal(agreed.allocationContext, style === 'fixed newstyle' ? 77 : undefined);
      }
});

test('block sizes are requested and used, and invalid ones are refused', async () => {
  const blockSizes = { minimum: 512, preferred: 65536, maximum: 2 ** 20 };
  assert.deepEqual((await shake({ blockSizes })).agreed.blockSizes, blockSizes);
  await assert.rejects(shake({ blockSizes: { ...blockSizes, minimum: 3 } }), { code: 'NBD_PROTOCOL' });
});

test('a server without NBD_OPT_GO gets NBD_OPT_EXPORT_NAME', async () => {
  const refuseGo = refuse(NBD_OPT.GO, NBD_REP.ERR_UNSUP);
  const { agreed, server } = await shake({ option: refuseGo, noZeroes: false });
  assert.equal(agreed.size, 2 ** 22);
  assert.deepEqual(server.optionsSeen.slice(-2), [NBD_OPT.GO, NBD_OPT.EXPORT_NAME]);
  await assert.rejects(
    shake({
      option: (option) => (option === NBD_OPT.EXPORT_NAME ? 'hang up' : refuseGo(option)),
    }),
    { code: 'NBD_EXPORT_UNKNOWN' },
  );
});

test('the server may refuse optional features', async () => {
  const { agreed } = await shake({ structured: false });
  assert.equal(agreed.structured, false);
  const meta = await shake({ option: refuse(NBD_OPT.SET_META_CONTEXT, NBD_REP.ERR_POLICY) });
  assert.equal(meta.agreed.structured, true);
  assert.equal(meta.agreed.allocationContext, undefined);
});

test("refusals have error codes and the server's message", async () => {
  for (const [type, code] of [
    [NBD_REP.ERR_UNKNOWN, 'NBD_EXPORT_UNKNOWN'],
    [NBD_REP.ERR_POLICY, 'NBD_REFUSED'],
    [NBD_REP.ERR_TLS_REQD, 'NBD_TLS'],
    [NBD_REP.ERR_SHUTDOWN, 'NBD_CONNECTION_LOST'],
    [NBD_REP.ERR_INVALID, 'NBD_REFUSED'],
    [2 ** 31 + 99, 'NBD_REFUSED'],
  ] as const) {
    const server = new ScriptedServer({ option: refuse(NBD_OPT.GO, type) });
    const run = runHandshake(transportOver(server.client), negotiateExport(peer), {
      name: peer.name,
      timeoutMs: 5000,
    });
    await assert.rejects(run, { code, message: /so there/ });
  }
  await assert.rejects(shake({ option: refuse(NBD_OPT.STRUCTURED_REPLY, NBD_REP.ERR_TLS_REQD) }), {
    code: 'NBD_TLS',
  });
  await assert.rejects(shake({ style: 'oldstyle' }, { exportName: 'disk' }), { code: 'NBD_EXPORT_UNKNOWN' });
});

test('if TLS is requested, the handshake never continues without TLS', async () => {
  const tls = { tls: true };
  await assert.rejects(shake({ style: 'oldstyle' }, tls), { code: 'NBD_TLS', message: /oldstyle/ });
  await assert.rejects(shake({ style: 'newstyle' }, tls), { code: 'NBD_TLS', message: /fixed/ });
  for (const type of [NBD_REP.ERR_UNSUP, NBD_REP.ERR_POLICY, NBD_REP.ERR_INVALID])
    await assert.rejects(shake({ option: refuse(NBD_OPT.STARTTLS, type) }, tls), { code: 'NBD_TLS' });
  const consent = encodeOptionReply(NBD_OPT.STARTTLS, NBD_REP.ACK);
  const consenting: Script['option'] = (option) => (option === NBD_OPT.STARTTLS ? consent : undefined);
  await assert.rejects(shake({ option: consenting }, tls), { message: 'the upgrade was reached' });
  const injected = Buffer.concat([consent, encodeOptionReply(NBD_OPT.STRUCTURED_REPLY, NBD_REP.ACK)]);
  await assert.rejects(
    shake({ option: (option) => (option === NBD_OPT.STARTTLS ? injected : undefined) }, tls),
    { code: 'NBD_PROTOCOL', message: /in the clear/ },
  );
  let first: number | undefined;
  await assert.rejects(
    shake(
      {
        option: (option) => {
          first ??= option;
          return 'hang up';
        },
      },
      tls,
    ),
    { code: 'NBD_CONNECTION_LOST' },
  );
  assert.equal(first, NBD_OPT.STARTTLS, 'the first word is NBD_OPT_STARTTLS');
});

test('unexpected replies are NBD_PROTOCOL', async () => {
  for (const wrong of [
    encodeOptionReply(NBD_OPT.LIST, NBD_REP.ACK),
    encodeOptionReply(NBD_OPT.GO, NBD_REP.SERVER, Buffer.alloc(4)),
    encodeOptionReply(NBD_OPT.GO, NBD_REP.ACK),
    encodeOptionReply(NBD_OPT.GO, NBD_REP.INFO, Buffer.alloc(3)),
    encodeOptionReply(NBD_OPT.GO, NBD_REP.INFO, Buffer.alloc(20000)),
    Buffer.from('this is not an option reply'),
  ])
    await assert.rejects(shake({ option: (option) => (option === NBD_OPT.GO ? wrong : undefined) }), {
      code: 'NBD_PROTOCOL',
    });
});

test('exports are listed and described', async () => {
  const ask = async <T>(negotiation: Parameters<typeof runHandshake<T>>[1]): Promise<T> => {
    const server = new ScriptedServer({ blockSizes: { minimum: 1, preferred: 4096, maximum: 2 ** 25 } });
    const options = { name: peer.name, timeoutMs: 5000 };
    return (await runHandshake(transportOver(server.client), negotiation, options)).value;
  };
  assert.deepEqual(await ask(negotiateList(peer)), [
    { name: '', description: 'about ""' },
    { name: 'disk', description: 'about "disk"' },
  ]);
  assert.equal((await ask(negotiateInfo(peer))).blockSizes?.preferred, 4096);
});

test('a timeout, a hang-up and a cancellation end the handshake', async () => {
  const run = (timeoutMs: number, signal?: AbortSignal): { done: Promise<unknown>; hangUp: () => void } => {
    const [client, server] = duplexPair();
    const done = runHandshake(transportOver(client), negotiateExport(peer), {
      name: peer.name,
      timeoutMs,
      signal,
    });
    return { done, hangUp: () => server.end() };
  };
  await assert.rejects(run(20).done, { code: 'NBD_CONNECTION_LOST', message: /within 20 ms/ });
  const silent = run(5000);
  silent.hangUp();
  await assert.rejects(silent.done, { code: 'NBD_CONNECTION_LOST', message: /greeting/ });
  const cancel = new AbortController();
  const cancelled = run(5000, cancel.signal);
  cancel.abort();
  await assert.rejects(cancelled.done, { code: 'CANCELLED' });
  await assert.rejects(run(5000, AbortSignal.abort()).done, { code: 'CANCELLED' });
});

test('garbage ends the handshake with an AgentError', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('', 'NBDMAGIC', 'NBDMAGICIHAVEOPT\0\x03', 'NBDMAGIC\0\0\x42\x02\x81\x86\x12\x53'),
      fc.uint8Array({ maxLength: 120 }),
      async (start, bytes) => {
        const [client, server] = duplexPair();
        server.on('error', () => undefined);
        server.resume();
        server.end(Buffer.concat([Buffer.from(start, 'latin1'), bytes]));
        const run = runHandshake(transportOver(client), negotiateExport(peer), {
          name: peer.name,
          timeoutMs: 2000,
        });
        try {
          await run;
        } catch (error) {
          assert.ok(error instanceof AgentError, String(error));
          assert.match(error.code, /^NBD_(PROTOCOL|CONNECTION_LOST)$/);
        }
        client.destroy();
      },
    ),
    { numRuns: 60 },
  );
});
