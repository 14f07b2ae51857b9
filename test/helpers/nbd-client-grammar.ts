/**
 * A grammar for fast-check of the messages that a hostile NBD client may send. They are well-formed messages,
 * messages with wrong lengths, unknown messages and garbage, in any order, interrupted anywhere.
 *
 * Also the judge: the server's real code over a stream in memory and over real image files.
 */
import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { NBD_CMD, NBD_OPT } from '../../src/nbd/protocol/constants.ts';
import { encodeClientFlags, encodeOption } from '../../src/nbd/protocol/handshake.ts';
import { encodeInfoRequest, encodeMetaContextRequest } from '../../src/nbd/protocol/options.ts';
import type { ExportProvider } from '../../src/nbd/server/backend.ts';
import { MemoryBudget } from '../../src/nbd/server/memory-budget.ts';
import { ask, connectTo, MemoryBackend } from './scripted-nbd-client.ts';

export const exportSize = MiB;

export interface Conversation {
  readonly bytes: Buffer;
  /** Sizes of the chunks into which the stream is split. */
  readonly chunks: readonly number[];
  readonly reads: boolean;
  readonly ending: 'end' | 'destroy' | 'stop' | 'drop' | 'silent';
}

const name = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom('disk', '', 'disk@1M', 'new@64K') },
  fc.constantFrom(
    'none',
    '../disk',
    '/etc/passwd',
    '.hidden',
    'disk@',
    'disk@99999999999999999999',
    'a\0b',
    '%2e%2e',
  ),
  fc.string({ maxLength: 300 }),
);
/** Names that our own encoders accept. The others are sent as garbage and in NBD_OPT_EXPORT_NAME. */
const cleanName = name.map((text) => text.replaceAll('\0', ''));
const garbage = fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes));
const infoRequest = fc
  .record({ name: cleanName, requests: fc.array(fc.nat(10), { maxLength: 5 }) })
  .map((request) => encodeInfoRequest(request));
const contexts = fc
  .record({
    name: cleanName,
    queries: fc.array(
      fc.oneof(
        fc.constantFrom('base:allocation', 'base:'),
        fc.string({ maxLength: 30 }).map((text) => text.replaceAll('\0', '')),
      ),
      {
        maxLength: 4,
      },
    ),
  })
  .map((request) => encodeMetaContextRequest(request));
const optionData = fc.oneof(
  infoRequest,
  contexts,
  garbage,
  name.map((text) => Buffer.from(text)),
);

/** Returns an option whose length field may be wrong. */
function lying(data: Buffer, option: number, more: number): Buffer {
  const bytes = Buffer.from(encodeOption(option, data));
  bytes.writeUInt32BE(Math.max(0, data.length + more) % 2 ** 32, 12);
  return bytes;
}

const option = fc.oneof(
  { weight: 3, arbitrary: fc.constant(encodeOption(NBD_OPT.STRUCTURED_REPLY)) },
  { weight: 2, arbitrary: contexts.map((data) => encodeOption(NBD_OPT.SET_META_CONTEXT, data)) },
  { weight: 2, arbitrary: infoRequest.map((data) => encodeOption(NBD_OPT.INFO, data)) },
  fc.constantFrom(NBD_OPT.LIST, NBD_OPT.ABORT, NBD_OPT.STARTTLS).map((type) => encodeOption(type)),
  fc
    .tuple(optionData, fc.oneof(fc.nat(14), fc.nat()), fc.oneof(fc.integer({ min: -9, max: 9 }), fc.nat()))
    .map(([data, type, more]) => lying(data, type, more)),
);
const entry = fc.oneof(
  { weight: 6, arbitrary: infoRequest.map((data) => encodeOption(NBD_OPT.GO, data)) },
  {
    weight: 3,
    arbitrary: fc.constant(encodeOption(NBD_OPT.GO, encodeInfoRequest({ name: 'disk', requests: [] }))),
  },
  name.map((text) => encodeOption(NBD_OPT.EXPORT_NAME, Buffer.from(text))),
  garbage,
);

const place = fc.oneof(
  fc.nat(exportSize),
  fc.constantFrom(0, exportSize - 1, exportSize, 2 ** 32, 2 ** 53 - 1),
);
const length = fc.oneof(
  fc.nat(128 * KiB),
  fc.constantFrom(0, 1, exportSize, 32 * MiB, 33 * MiB, 2 ** 32 - 1),
);
const type = fc.oneof({ weight: 8, arbitrary: fc.constantFrom(...Object.values(NBD_CMD)) }, fc.nat(0xffff));
const request = fc
  .record({
    type,
    at: place,
    length,
    flags: fc.oneof(fc.nat(63), fc.nat(0xffff)),
    payload: fc.nat(128 * KiB),
  })
  .map(({ type: command, at, length: claimed, flags, payload }) =>
    command === NBD_CMD.WRITE && claimed > 256 * KiB
      ? Buffer.concat([ask(command, at, claimed, { flags }), Buffer.alloc(payload, 1)])
      : command === NBD_CMD.WRITE
        ? ask(command, at, Buffer.alloc(claimed, 1), { flags })
        : ask(command, at, claimed, { flags }),
  );
/** The header of NBD_OPT_EXTENDED_HEADERS, which is not negotiated. */
const extended = fc.uint8Array({ minLength: 28, maxLength: 28 }).map((bytes) => {
  const header = Buffer.from(bytes);
  header.writeUInt32BE(0x21e41c71);
  return Buffer.concat([Buffer.from([0x21, 0xe4, 0x1c, 0x71]), header]);
});

export const conversation: fc.Arbitrary<Conversation> = fc
  .record({
    flags: fc.oneof({ weight: 8, arbitrary: fc.constantFrom(1, 3) }, fc.nat()),
    options: fc.array(option, { maxLength: 5 }),
    entry,
    requests: fc.array(fc.oneof({ weight: 12, arbitrary: request }, garbage, extended), { maxLength: 12 }),
    cut: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, fc.double({ min: 0, max: 1, noNaN: true })),
    chunks: fc.array(fc.integer({ min: 1, max: 5000 }), { maxLength: 6 }),
    reads: fc.boolean(),
    ending: fc.constantFrom('end', 'destroy', 'stop', 'drop', 'silent'),
  })
  .map(({ flags, options, entry: chosen, requests, cut, ...how }) => {
    const bytes = Buffer.concat([encodeClientFlags(flags), ...options, chosen, ...requests]);
    return { bytes: bytes.subarray(0, Math.ceil(bytes.length * cut)), ...how };
  });

/** Exports in memory that count open exports, and refuse requests that the server must not make. */
export class CountedExports implements ExportProvider {
  openNow = 0;
  opened = 0;

  list(): { name: string; description: string }[] {
    return [{ name: 'disk', description: 'counted' }];
  }

  describe(wanted: string) {
    const { size, readOnly, multiConnection, fastZero } = this.#make();
    return { name: wanted, description: 'counted', size, readOnly, multiConnection, fastZero };
  }

  open(): MemoryBackend {
    const backend = this.#make();
    this.openNow++;
    this.opened++;
    let running = 0;
    let closed = false;
    backend.before = async (call) => {
      assert.equal(closed, false, `${call} after the close`);
      const [, from, bytes] = /(\d+)\+(\d+)/.exec(call) ?? ['', '0', '0'];
      assert.ok(Number(from) + Number(bytes) <= exportSize, `${call} passes the end`);
      running++;
      await turn();
      running--;
    };
    backend.close = () => {
      assert.equal(running, 0, 'closed while requests run');
      assert.equal(closed, false, 'closed twice');
      closed = true;
      this.openNow--;
    };
    return backend;
  }

  #make(): MemoryBackend {
    return new MemoryBackend(exportSize);
  }
}

/** Plays the conversation. Throws if the connection does not end within `ms` of the client's end. */
export async function converse(said: Conversation, exports: ExportProvider, ms = 10_000): Promise<void> {
  const budget = new MemoryBudget({ shared: 40 * MiB, patienceMs: 50 });
  const client = connectTo(exports, { budget, handshakeTimeoutMs: 50, goodbyeMs: 20 });
  if (!said.reads) client.stream.pause();
  let at = 0;
  for (const chunk of [...said.chunks, said.bytes.length]) {
    client.send(said.bytes.subarray(at, at + chunk));
    at += chunk;
    await turn();
  }
  if (said.ending === 'end') client.stream.end();
  else if (said.ending === 'destroy') client.stream.destroy();
  else if (said.ending === 'stop') client.connection.stop();
  else if (said.ending === 'drop') client.connection.drop('makes room');
  // The server has to drop a client that falls silent in the handshake. After the handshake silence is
  // allowed.
  const silentMs = said.ending === 'silent' ? 100 : ms;
  if ((await within(client.connection.done, silentMs)) === 'late') {
    assert.equal(said.ending, 'silent', 'the connection does not end');
    client.stream.destroy();
    assert.equal(await within(client.connection.done, ms), 'done', 'the connection does not end');
  }
  client.stream.destroy();
  const deadline = performance.now() + ms;
  while (budget.used > 0) {
    assert.ok(performance.now() < deadline, `${budget.used} bytes are not given back`);
    await turn();
  }
}

async function within(work: Promise<void>, ms: number): Promise<'done' | 'late'> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(resolve, ms, 'late');
  });
  try {
    return await Promise.race([work.then(() => 'done' as const), late]);
  } finally {
    clearTimeout(timer);
  }
}
