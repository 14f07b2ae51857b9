/**
 * Proves that an NBD server cannot cause more than an error in the client, whatever it sends. Every
 * conversation ends in time, memory stays bounded, and a successful read returns only bytes that the server
 * sent.
 *
 * `HOSTILE_RUNS=200000 scripts/node --test test/unit/hostile-nbd-server.test.ts` is the long campaign.
 */
import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { AgentError } from '../../src/base/errors.ts';
import type { ErrorCode } from '../../src/base/error-codes.ts';
import { openTarget } from '../../src/nbd/client/connect.ts';
import { runHandshake } from '../../src/nbd/client/handshake.ts';
import {
  type Negotiation,
  type Peer,
  negotiateExport,
  negotiateInfo,
  negotiateList,
} from '../../src/nbd/client/negotiate.ts';
import { assertBuffersBelow, heldByBuffers } from '../helpers/garbage.ts';
import { ScriptedServer, type Script } from '../helpers/scripted-nbd-server.ts';
import { transportOver } from '../../src/nbd/client/transport.ts';
import { NBD_CMD, NBD_REPLY_FLAG, NBD_STATE } from '../../src/nbd/protocol/constants.ts';
import { encodeDataChunkHeader, encodeErrorChunk } from '../../src/nbd/protocol/reply.ts';
import {
  mangle,
  mangling,
  optionReply,
  renderOptionReply,
  renderReply,
  reply,
} from '../helpers/nbd-grammar.ts';
import { openScripted, scriptFor } from '../helpers/scripted-target.ts';

const numRuns = Number(process.env['HOSTILE_RUNS'] ?? 200);
/** Reported with each failure; `HOSTILE_SEED` repeats it. */
const seed = Number(process.env['HOSTILE_SEED'] ?? Date.now() % 2 ** 31);

/** A conversation ends with an error of one of these codes, or with success. Any other end is a defect. */
const allowed: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  ...(['NBD_PROTOCOL', 'NBD_CONNECTION_LOST', 'NBD_REFUSED', 'NBD_EXPORT_UNKNOWN', 'NBD_TLS'] as const),
  ...([
    'NBD_SERVER_ERROR',
    'TARGET_TOO_SMALL',
    'TARGET_FULL',
    'TARGET_READ_ONLY',
    'TARGET_WRITE_ERROR',
  ] as const),
]);

async function ends<T>(work: Promise<T>): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error('it does not end')), 10_000);
  });
  try {
    return await Promise.race([work, late]);
  } catch (error) {
    // A request that the export cannot take is refused before it is sent.
    if (error instanceof RangeError) return undefined;
    assert.ok(error instanceof AgentError && allowed.has(error.code), String(error));
    assert.ok(error.message.length < 6000, 'a message has an end');
    assert.doesNotMatch(error.message, /[\u0000-\u001f\u007f-\u009f]/);
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

const name = 'nbd://scripted/';
const negotiations: readonly ((peer: Peer) => Negotiation<unknown>)[] = [
  negotiateExport,
  negotiateInfo,
  negotiateList,
];

test('a handshake with any replies, cut and altered at any byte, ends', async () => {
  const before = heldByBuffers();
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(optionReply, { maxLength: 4 }), { maxLength: 5 }),
      mangling,
      fc.constantFrom(...negotiations),
      async (answers, mangled, negotiate) => {
        let asked = 0;
        const server = new ScriptedServer({
          split: mangled.split ?? 65536,
          option: (option) => {
            const shapes = answers[asked++];
            if (shapes === undefined) return undefined;
            const bytes = Buffer.concat(shapes.map((shape) => renderOptionReply(shape, option)));
            if (mangled.cut !== undefined) server.hangUp();
            return mangle(bytes, mangled);
          },
        });
        const done = await ends(
          runHandshake(transportOver(server.client), negotiate({ name, exportName: 'disk', tls: false }), {
            name,
            timeoutMs: 20,
          }),
        );
        done?.transport.stream.destroy();
        server.client.destroy();
      },
    ),
    { numRuns, seed },
  );
  await assertBuffersBelow(before + 64 * 2 ** 20);
});

test('a handshake with any bytes ends', async () => {
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), fc.boolean(), async (bytes, greeted) => {
      const server = new ScriptedServer(
        greeted ? { option: () => Buffer.from(bytes) } : { style: 'oldstyle' },
      );
      if (!greeted) server.client.unshift(bytes);
      const done = await ends(
        runHandshake(transportOver(server.client), negotiateExport({ name, exportName: '', tls: false }), {
          name,
          timeoutMs: 20,
        }),
      );
      done?.transport.stream.destroy();
      server.client.destroy();
    }),
    { numRuns, seed },
  );
});

/** The longest stretches of bytes that are neither 0xdb nor 0. */
function strangeRuns(data: Buffer): Buffer[] {
  const isStrange = (byte: number | undefined): boolean => byte !== undefined && byte !== 0xdb && byte !== 0;
  const runs: Buffer[] = [];
  for (let at = 0; at < data.length; at++) {
    const start = at;
    while (isStrange(data[at])) at++;
    if (at > start) runs.push(data.subarray(start, at));
  }
  return runs;
}

test('any replies to any requests end, and a read returns only bytes from the server', async () => {
  const before = heldByBuffers();
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(reply, { minLength: 1, maxLength: 5 }), { minLength: 1, maxLength: 6 }),
      mangling,
      fc.boolean(),
      async (answers, mangled, structured) => {
        let number = 0;
        const { target, server } = await openScripted(
          {
            structured,
            split: mangled.split ?? 65536,
            request: (request, _payload, scripted) => {
              const shapes = answers[number++];
              if (shapes === undefined || request.type === NBD_CMD.DISC) return false;
              scripted.say(
                mangle(Buffer.concat(shapes.map((shape) => renderReply(shape, request))), mangled),
              );
              if (mangled.cut !== undefined) scripted.hangUp();
              return true;
            },
          },
          { timeoutMs: 40 },
        );
        server.memory.fill(0xdb);
        const into = Buffer.alloc(8192, 0x55);
        const work = [
          ends(target.readInto(4096, into).then(() => into)),
          ends(target.write(0, Buffer.alloc(4096))),
          ends(target.writeZeroes(65536, 4096, { hole: true })),
          ends(target.trim(0, 65536)),
          ends(statusOf(target)),
        ];
        const [data] = await Promise.all(work);
        // 0xdb is sent as data, 0 is a hole. If a reply has less data than it says, the client takes the replies that
        // follow for data: these bytes come from the server as well.
        const said = Buffer.concat(server.said);
        for (const run of strangeRuns((data as Buffer | undefined) ?? Buffer.alloc(0)))
          assert.ok(
            said.includes(run),
            `${run.length} bytes that the server did not send: ${run.toString('hex')}`,
          );
        await ends(target.flush());
        target.destroy();
        server.client.destroy();
      },
    ),
    { numRuns, seed },
  );
  await assertBuffersBelow(before + 64 * 2 ** 20);
});

async function statusOf(target: ReturnType<typeof openTarget>): Promise<void> {
  let covered = 0;
  for await (const { offset, length } of target.zeroExtents(0, target.size)) {
    assert.ok(
      offset >= covered && offset + length <= target.size && length > 0,
      'zeros in order, within the export',
    );
    covered = offset + length;
  }
}

/** Sends the results of `next` until the client disconnects. `sent` counts the bytes until then. */
function floods(next: (request: Parameters<NonNullable<Script['request']>>[0], number: number) => Buffer): {
  script: NonNullable<Script['request']>;
  sent: () => number;
} {
  let sent = 0;
  return {
    sent: () => sent,
    script: (request, _payload, server) => {
      let number = 0;
      const go = (): void => {
        if (server.client.destroyed) return;
        const bytes = next(request, number++);
        sent += bytes.length;
        server.say(bytes);
        setTimeout(go, 1).unref();
      };
      go();
      return true;
    },
  };
}

test('after a few of many error chunks the client disconnects', async () => {
  const { script, sent } = floods(({ cookieHigh, cookieLow }) =>
    encodeErrorChunk(0, cookieHigh, cookieLow, 5, 'x'),
  );
  const { target } = await openScripted(scriptFor(NBD_CMD.READ, script), { timeoutMs: 5000 });
  await assert.rejects(target.read(0, 4096), { code: 'NBD_PROTOCOL', message: /more than 64 errors/ });
  assert.ok(sent() < 16384, `${sent()} bytes`);
});

test('a single byte now and then does not count as progress', async () => {
  const { script } = floods(({ cookieHigh, cookieLow, offset }, number) => {
    const head = Buffer.alloc(28);
    encodeDataChunkHeader(head, 0, NBD_REPLY_FLAG.DONE, cookieHigh, cookieLow, offset, 4096);
    return number === 0 ? head : Buffer.from([number]);
  });
  const { target } = await openScripted(scriptFor(NBD_CMD.READ, script), { timeoutMs: 150 });
  const start = performance.now();
  await assert.rejects(target.read(0, 4096), {
    code: 'NBD_CONNECTION_LOST',
    message: /no progress for \d+ ms/,
  });
  assert.ok(performance.now() - start < 3000);
});

test('a request without an answer fails although others are answered', async () => {
  const { target } = await openScripted(
    scriptFor(NBD_CMD.WRITE, ({ offset }) => offset === 0),
    { timeoutMs: 20 },
  );
  const left = target.write(0, Buffer.alloc(512));
  let done = 0;
  const others = (async (): Promise<void> => {
    for (;;) {
      await target.write(512, Buffer.alloc(512));
      done++;
    }
  })();
  await assert.rejects(left, { code: 'NBD_CONNECTION_LOST', message: /unanswered for 600 ms/ });
  await assert.rejects(others);
  assert.ok(done > 10);
});

test('zeros in extents of one byte end the requests for more', async () => {
  const { target, server } = await openScripted(
    scriptFor(NBD_CMD.BLOCK_STATUS, (request, _payload, scripted) => {
      scripted.answerStatus(request, [{ length: 1, flags: NBD_STATE.ZERO }]);
      return true;
    }),
  );
  await ends(statusOf(target));
  assert.ok(server.requests.length <= 65, `${server.requests.length} questions`);
  await target.close();
});
