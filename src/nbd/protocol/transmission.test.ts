import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AgentError } from '../../base/errors.ts';
import { NBD_CMD, NBD_REPLY_FLAG } from './constants.ts';
import { ReplyDecoder, type ReplyHandler } from './reply-decoder.ts';
import * as reply from './reply.ts';
import { RequestDecoder, encodeRequest } from './request.ts';

const { DONE } = NBD_REPLY_FLAG;

function request(flags: number, type: number, cookie: number, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(28);
  encodeRequest(bytes, 0, flags, type, 0xfedcba98, cookie, offset, length);
  return bytes;
}

function head(bytes: number, write: (into: Buffer) => void): Buffer {
  const into = Buffer.alloc(bytes);
  write(into);
  return into;
}

/** All replies that a server may send, with the expected calls of the handler. */
const replies = Buffer.concat([
  head(16, (b) => reply.encodeSimpleReply(b, 0, 0, 1, 2)),
  head(16, (b) => reply.encodeSimpleReply(b, 0, 28, 1, 3)),
  head(16, (b) => reply.encodeSimpleReply(b, 0, 0, 9, 5)), // 9 marks a read of 5 bytes
  Buffer.from('hello'),
  head(28, (b) => reply.encodeDataChunkHeader(b, 0, 0, 1, 4, 2 ** 40 + 7, 5)),
  Buffer.from('world'),
  head(32, (b) => reply.encodeHoleChunk(b, 0, 0, 1, 4, 2 ** 40, 7)),
  head(20, (b) => reply.encodeNoneChunk(b, 0, 1, 4)),
  reply.encodeErrorChunk(DONE, 1, 5, 5, 'it broke'),
  reply.encodeErrorChunk(0, 1, 6, 5, 'here', 2 ** 33),
  reply.encodeErrorChunk(DONE, 1, 6, 22, ''),
  reply.encodeBlockStatusChunk(DONE, 1, 7, 42, [
    { length: 65536, flags: 3 },
    { length: 0xffffffff, flags: 0 },
  ]),
]);
const heard = [
  'simple 1.2 0',
  'done 1.2',
  'simple 1.3 28',
  'done 1.3',
  'simple 9.5 0',
  'done 9.5 hello',
  'data 1.4 1099511627783+5',
  'hole 1.4 1099511627776+7',
  'done 1.4 world',
  'error 1.5 5 "it broke" undefined',
  'done 1.5',
  'error 1.6 5 "here" 8589934592',
  'error 1.6 22 "" undefined',
  'done 1.6',
  'status 1.7 42 [{"length":65536,"flags":3},{"length":4294967295,"flags":0}]',
  'done 1.7',
];

function recorder(events: string[]): ReplyHandler {
  let into: Buffer | undefined;
  return {
    simple: (high, low, error) => {
      events.push(`simple ${high}.${low} ${error}`);
      if (high === 9 && error === 0) return (into = Buffer.alloc(low));
      return undefined;
    },
    data: (high, low, offset, length) => {
      events.push(`data ${high}.${low} ${offset}+${length}`);
      if (length > 2 ** 20) throw new AgentError('NBD_PROTOCOL', 'more than was asked for');
      return (into = Buffer.alloc(length));
    },
    hole: (high, low, offset, length) => void events.push(`hole ${high}.${low} ${offset}+${length}`),
    status: (high, low, id, descriptors) =>
      void events.push(`status ${high}.${low} ${id} ${JSON.stringify(descriptors)}`),
    error: (high, low, error, message, offset) =>
      void events.push(`error ${high}.${low} ${error} "${message}" ${String(offset)}`),
    done: (high, low) => {
      events.push(`done ${high}.${low}${into === undefined ? '' : ` ${into.toString()}`}`);
      into = undefined;
    },
  };
}

test('replies are decoded equally for every split of the bytes', () => {
  for (let at = 0; at <= replies.length; at++) {
    const events: string[] = [];
    const decoder = new ReplyDecoder(recorder(events), true);
    decoder.push(replies.subarray(0, at));
    decoder.push(replies.subarray(at));
    assert.deepEqual(events, heard, `split at ${at}`);
  }
  const events: string[] = [];
  const decoder = new ReplyDecoder(recorder(events), true);
  for (const byte of replies) decoder.push(Uint8Array.of(byte));
  assert.deepEqual(events, heard, 'byte by byte');
});

test('a structured reply is refused if structured replies were not negotiated', () => {
  const decoder = new ReplyDecoder(recorder([]), false);
  assert.throws(() => decoder.push(head(20, (b) => reply.encodeNoneChunk(b, 0, 1, 4))), {
    code: 'NBD_PROTOCOL',
  });
});

test('a length that does not fit the type of its chunk is refused before the payload arrives', () => {
  for (const [type, length, flags] of [
    [0, 4, DONE],
    [0, 0, 0],
    [1, 8, 0],
    [2, 13, 0],
    [5, 4, 0],
    [5, 13, 0],
    [5, 2 ** 31 + 4, 0],
    [3, 0, DONE],
    [2 ** 15 + 1, 5, 0],
    [2 ** 15 + 1, 2 ** 20, 0],
  ] as const) {
    const decoder = new ReplyDecoder(recorder([]), true);
    assert.throws(
      () => decoder.push(head(20, (b) => reply.encodeChunkHeader(b, 0, flags, type, 1, 1, length))),
      { code: 'NBD_PROTOCOL' },
      `type ${type} length ${length}`,
    );
  }
});

test('an unknown error chunk fails only its request', () => {
  const events: string[] = [];
  const decoder = new ReplyDecoder(recorder(events), true);
  const body = Buffer.from('00000016000568656c6c6f99', 'hex');
  decoder.push(
    Buffer.concat([head(20, (b) => reply.encodeChunkHeader(b, 0, DONE, 0x8fff, 1, 1, body.length)), body]),
  );
  assert.deepEqual(events, ['error 1.1 22 "hello" undefined', 'done 1.1']);
});

test('garbage throws nothing but NBD_PROTOCOL', () => {
  const start = fc.constantFrom('67446698', '668e33ef', '');
  fc.assert(
    fc.property(start, fc.uint8Array({ maxLength: 200 }), (magic, bytes) => {
      try {
        const decoder = new ReplyDecoder(recorder([]), true);
        decoder.push(Buffer.concat([Buffer.from(magic, 'hex'), bytes]));
      } catch (error) {
        assert.ok(error instanceof AgentError && error.code === 'NBD_PROTOCOL', String(error));
      }
    }),
  );
});

const requests = Buffer.concat([
  request(0, NBD_CMD.READ, 1, 2 ** 45 + 512, 4096),
  request(1, NBD_CMD.WRITE, 2, 0, 5),
  Buffer.from('hello'),
  request(0, NBD_CMD.WRITE, 0xffffffff, 100, 7), // no place for this one
  Buffer.from('dropped'),
  request(0, NBD_CMD.WRITE, 4, 100, 0),
  request(2, NBD_CMD.WRITE_ZEROES, 5, 0, 0xffffffff),
  request(0, NBD_CMD.DISC, 6, 0, 0),
  Buffer.from('nobody reads this'),
]);
const requested = [
  '0 0 1 35184372089344+4096 -',
  '1 1 2 0+5 hello',
  '0 1 4294967295 100+7 -',
  '0 1 4 100+0 ',
  '2 6 5 0+4294967295 -',
  '0 2 6 0+0 -',
];

test('requests are decoded equally for every split of the bytes', () => {
  for (let at = 0; at <= requests.length; at++) {
    const events: string[] = [];
    const decoder = new RequestDecoder({
      payloadFor: (r) => (r.length === 7 ? undefined : Buffer.alloc(r.length)),
      request: (r, payload) => {
        assert.equal(r.cookieHigh, 0xfedcba98);
        const data = payload === undefined ? '-' : Buffer.from(payload).toString();
        events.push(`${r.flags} ${r.type} ${r.cookieLow} ${r.offset}+${r.length} ${data}`);
      },
    });
    decoder.push(requests.subarray(0, at));
    decoder.push(requests.subarray(at));
    assert.deepEqual(events, requested, `split at ${at}`);
  }
});

test('request headers are the same after encoding and decoding', () => {
  const u16 = fc.nat(65535);
  const u32 = fc.nat(0xffffffff);
  fc.assert(
    fc.property(u16, u16, u32, u32, fc.maxSafeNat(), u32, (flags, type, high, low, offset, length) => {
      fc.pre(type !== NBD_CMD.WRITE);
      const bytes = Buffer.alloc(28);
      encodeRequest(bytes, 0, flags, type, high, low, offset, length);
      let seen: unknown;
      const decoder = new RequestDecoder({
        payloadFor: () => undefined,
        request: (r) => {
          seen = r;
        },
      });
      decoder.push(bytes);
      assert.deepEqual(seen, { flags, type, cookieHigh: high, cookieLow: low, offset, length });
    }),
  );
});
