import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { AgentError } from '../../base/errors.ts';
import * as constants from './constants.ts';
import * as handshake from './handshake.ts';
import * as options from './options.ts';

const name = fc.string({ unit: 'grapheme', maxLength: 40 }).filter((text) => !text.includes('\0'));
const u32 = fc.nat(0xffffffff);
const size = fc.maxSafeNat();

test('option requests and replies are the same after encoding and decoding', () => {
  fc.assert(
    fc.property(u32, u32, fc.uint8Array({ maxLength: 60 }), (option, type, data) => {
      const request = handshake.encodeOption(option, data);
      assert.deepEqual(handshake.decodeOptionHeader(request.subarray(0, 16)), {
        option,
        length: data.length,
      });
      assert.deepEqual(request.subarray(16), Buffer.from(data));
      const reply = handshake.encodeOptionReply(option, type, data);
      assert.deepEqual(handshake.decodeOptionReplyHeader(reply.subarray(0, 20)), {
        option,
        type,
        length: data.length,
      });
    }),
  );
});

test('option data is the same after encoding and decoding', () => {
  fc.assert(
    fc.property(
      name,
      fc.array(fc.nat(65535), { maxLength: 5 }),
      fc.array(name, { maxLength: 4 }),
      (n, r, q) => {
        assert.deepEqual(options.decodeInfoRequest(options.encodeInfoRequest({ name: n, requests: r })), {
          name: n,
          requests: r,
        });
        const meta = { name: n, queries: q };
        assert.deepEqual(options.decodeMetaContextRequest(options.encodeMetaContextRequest(meta)), meta);
      },
    ),
  );
  fc.assert(
    fc.property(name, u32, size, fc.nat(65535), (n, id, bytes, flags) => {
      assert.deepEqual(options.decodeMetaContext(options.encodeMetaContext({ id, name: n })), {
        id,
        name: n,
      });
      const listed = { name: n, description: 'two words' };
      assert.deepEqual(options.decodeListedExport(options.encodeListedExport(listed)), listed);
      const infos: Exclude<options.InfoReply, { type: 'unknown' }>[] = [
        { type: constants.NBD_INFO.EXPORT, size: bytes, flags },
        { type: constants.NBD_INFO.NAME, name: n },
        { type: constants.NBD_INFO.BLOCK_SIZE, minimum: 1, preferred: 4096, maximum: id },
      ];
      for (const info of infos)
        assert.deepEqual(options.decodeInfoReply(options.encodeInfoReply(info)), info);
    }),
  );
});

test('greetings and the export name reply are the same after encoding and decoding', () => {
  fc.assert(
    fc.property(size, fc.nat(65535), (bytes, flags) => {
      const info = { size: bytes, flags };
      const old = handshake.encodeOldstyleGreeting(info);
      assert.equal(old.length, 152);
      assert.equal(handshake.decodeGreeting(old.subarray(0, 16)), 'oldstyle');
      assert.deepEqual(handshake.decodeOldstyleRest(old.subarray(16)), info);
      const fresh = handshake.encodeNewstyleGreeting(flags);
      assert.equal(handshake.decodeGreeting(fresh.subarray(0, 16)), 'newstyle');
      assert.equal(handshake.decodeNewstyleFlags(fresh.subarray(16)), flags);
      assert.equal(handshake.encodeExportNameReply(info, true).length, 134);
      assert.deepEqual(handshake.decodeExportNameReply(handshake.encodeExportNameReply(info, false)), info);
    }),
  );
});

test('garbage always throws NBD_PROTOCOL', () => {
  const decoders = [
    options.decodeInfoRequest,
    options.decodeMetaContextRequest,
    options.decodeListedExport,
    options.decodeInfoReply,
    options.decodeMetaContext,
  ];
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 80 }), fc.nat(decoders.length - 1), (bytes, which) => {
      try {
        decoders[which]!(Buffer.from(bytes));
      } catch (error) {
        assert.ok(error instanceof AgentError && error.code === 'NBD_PROTOCOL', String(error));
      }
    }),
  );
  for (const decode of [
    handshake.decodeGreeting,
    handshake.decodeOptionHeader,
    handshake.decodeOptionReplyHeader,
  ])
    assert.throws(() => decode(Buffer.from('HTTP/1.1 400 Bad Request')), { code: 'NBD_PROTOCOL' });
});

test('a query count that is too large for the data is refused at once', () => {
  const data = options.encodeMetaContextRequest({ name: '', queries: [] });
  data.writeUInt32BE(0xffffffff, 4);
  assert.throws(() => options.decodeMetaContextRequest(data), { code: 'NBD_PROTOCOL' });
});

test('the fault of invalid block sizes is named', () => {
  assert.equal(options.blockSizeFault({ minimum: 1, preferred: 4096, maximum: 0xffffffff }), undefined);
  assert.match(options.blockSizeFault({ minimum: 3, preferred: 4096, maximum: 65536 }) ?? '', /minimum/);
  assert.match(
    options.blockSizeFault({ minimum: 131072, preferred: 131072, maximum: 2 ** 20 }) ?? '',
    /65536/,
  );
  assert.match(options.blockSizeFault({ minimum: 4096, preferred: 512, maximum: 65536 }) ?? '', /preferred/);
  assert.match(options.blockSizeFault({ minimum: 1, preferred: 4096, maximum: 512 }) ?? '', /maximum/);
});

test('numbers have names', () => {
  assert.equal(constants.optionName(7), 'NBD_OPT_GO');
  assert.equal(constants.optionReplyName(2 ** 31 + 6), 'NBD_REP_ERR_UNKNOWN');
  assert.equal(constants.commandName(6), 'NBD_CMD_WRITE_ZEROES');
  assert.equal(constants.errorName(28), 'NBD_ENOSPC');
  assert.equal(constants.errorName(77), 'NBD_77 (unknown)');
  assert.equal(constants.transmissionFlagNames(5), 'NBD_FLAG_HAS_FLAGS|NBD_FLAG_SEND_FLUSH');
  assert.equal(constants.transmissionFlagNames(0x8001), 'NBD_FLAG_HAS_FLAGS|0x8000');
  assert.equal(constants.transmissionFlagNames(0), '0');
});
