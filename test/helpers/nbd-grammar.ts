/**
 * A grammar of NBD messages for fuzzing, in both directions. Messages are mostly well-formed; their fields
 * are correct, at a limit, or random. The bytes are then cut, altered and split at any place.
 *
 * The grammar is pure: shapes in, bytes out. A cookie is rendered late, when the request that it answers is
 * known. The protocol is doc/proto.md of the NBD project.
 */
import fc from 'fast-check';
import {
  BASE_ALLOCATION,
  NBD_INFO,
  NBD_OPT,
  NBD_REP,
  NBD_REPLY_TYPE,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
} from '../../src/nbd/protocol/constants.ts';

/** Numbers at which decoders break, and any other number. */
export const u16 = fc.oneof(fc.constantFrom(0, 1, 2, 3, 0x7fff, 0x8000, 0xffff), fc.nat(0xffff));
export const u32 = fc.oneof(
  fc.constantFrom(0, 1, 6, 8, 9, 12, 4096, 65536, 0x7fffffff, 0x80000000, 0xffffffff),
  fc.nat(0xffffffff),
);
export const u64 = fc.oneof(
  fc.constantFrom(0n, 1n, 4096n, 2n ** 32n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n),
  fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
);

/** Returns one of a protocol's numbers, seldom another one. */
function numberOf(
  table: Readonly<Record<string, number>>,
  other: fc.Arbitrary<number>,
): fc.Arbitrary<number> {
  return fc.oneof({ weight: 9, arbitrary: fc.constantFrom(...Object.values(table)) }, other);
}

const bytes = (maxLength: number): fc.Arbitrary<Uint8Array> => fc.uint8Array({ maxLength });

/** A counted string, usually with the correct count. */
const counted = fc
  .record({
    text: fc.oneof(fc.constantFrom('', 'disk', BASE_ALLOCATION), fc.string()),
    count: fc.option(u32),
  })
  .map(({ text, count }) => {
    const data = Buffer.from(text);
    return Buffer.concat([be32(count ?? data.length), data]);
  });

/** The data of an option reply, by the type of the reply. */
const replyData: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.constant(new Uint8Array()),
  bytes(64),
  counted,
  fc
    .record({ id: u32, name: fc.constantFrom(BASE_ALLOCATION, 'qemu:x', '') })
    .map(({ id, name }) => Buffer.concat([be32(id), Buffer.from(name)])),
  fc
    .record({ size: u64, flags: u16 })
    .map(({ size, flags }) => Buffer.concat([be16(NBD_INFO.EXPORT), be64(size), be16(flags)])),
  fc
    .tuple(fc.oneof(u32, fc.constantFrom(1, 512, 4096)), u32, u32)
    .map((sizes) => Buffer.concat([be16(NBD_INFO.BLOCK_SIZE), ...sizes.map(be32)])),
);

export interface OptionReplyShape {
  /** Undefined: the requested option. */
  readonly option: number | undefined;
  readonly type: number;
  readonly data: Uint8Array;
  /** Undefined: the length of the data. */
  readonly length: number | undefined;
  readonly magic: bigint;
}

const REPLY_MAGIC = 0x0003e889045565a9n;

export const optionReply: fc.Arbitrary<OptionReplyShape> = fc.record({
  option: mostly(undefined, numberOf(NBD_OPT, u32)),
  type: numberOf(NBD_REP, u32),
  data: replyData,
  length: mostly(undefined, u32),
  magic: mostly(REPLY_MAGIC, u64),
});

export function renderOptionReply(
  { option, type, data, length, magic }: OptionReplyShape,
  asked: number,
): Buffer {
  return Buffer.concat([be64(magic), be32(option ?? asked), be32(type), be32(length ?? data.length), data]);
}

/** The request that a reply answers, as the client sent it. */
export interface Answered {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offset: number;
  readonly length: number;
}

export interface ReplyShape {
  readonly structured: boolean;
  readonly magic: number | undefined;
  /** Added to the cookie; 0 gives the correct one. */
  readonly cookie: number;
  readonly flags: number;
  readonly type: number;
  readonly error: number;
  /** Offset in the request, in bytes. Negative or large values are outside. */
  readonly from: number;
  /** Bytes of data, hole or extent. Undefined: the requested number. */
  readonly size: number | undefined;
  readonly extra: Uint8Array;
  /** Undefined: the length of the payload. */
  readonly length: number | undefined;
}

export const reply: fc.Arbitrary<ReplyShape> = fc.record({
  structured: mostly(true, fc.constant(false)),
  magic: mostly(undefined, u32),
  cookie: mostly(0, fc.integer({ min: -3, max: 3 })),
  flags: fc.oneof({ weight: 4, arbitrary: fc.constantFrom(0, 1) }, u16),
  type: numberOf(NBD_REPLY_TYPE, u16),
  error: fc.oneof(fc.constantFrom(0, 1, 5, 22, 28, 108), u32),
  from: mostly(0, fc.integer({ min: -1024, max: 9000 })),
  size: mostly(undefined, fc.oneof(fc.nat(9000), u32)),
  extra: mostly(new Uint8Array(), bytes(40)),
  length: mostly(undefined, u32),
});

/** Renders a reply. The payload is limited to 64 KiB for every shape; the length field does not change. */
export function renderReply(shape: ReplyShape, asked: Answered, fill = 0xdb): Buffer {
  const low = (asked.cookieLow + shape.cookie) >>> 0;
  const size = shape.size ?? asked.length;
  const data = Buffer.alloc(Math.min(size, 65536), fill);
  if (!shape.structured) {
    const head = [
      be32(shape.magic ?? SIMPLE_REPLY_MAGIC),
      be32(shape.error),
      be32(asked.cookieHigh),
      be32(low),
    ];
    return Buffer.concat([...head, shape.error === 0 ? data : empty]);
  }
  const payload = Buffer.concat([
    chunkPayload(shape, BigInt(asked.offset + shape.from), size, data),
    shape.extra,
  ]);
  return Buffer.concat([
    be32(shape.magic ?? STRUCTURED_REPLY_MAGIC),
    be16(shape.flags),
    be16(shape.type),
    be32(asked.cookieHigh),
    be32(low),
    be32(shape.length ?? payload.length),
    payload,
  ]);
}

function chunkPayload(
  { type, error, extra }: ReplyShape,
  offset: bigint,
  size: number,
  data: Buffer,
): Buffer {
  switch (type) {
    case NBD_REPLY_TYPE.NONE:
      return empty;
    case NBD_REPLY_TYPE.OFFSET_DATA:
      return Buffer.concat([be64(offset), data]);
    case NBD_REPLY_TYPE.OFFSET_HOLE:
      return Buffer.concat([be64(offset), be32(size)]);
    case NBD_REPLY_TYPE.BLOCK_STATUS:
      return Buffer.concat([be32(77), be32(size), be32(error), be32(1), be32(3)]);
    default:
      return Buffer.concat([be32(error), be16(extra.length), extra, be64(offset)]);
  }
}

/** Changes of the bytes on their way. An undefined value changes nothing. */
export interface Mangling {
  /** Ends the stream after this share of the bytes. */
  readonly cut: number | undefined;
  /** Replaces the byte at this share of the way. */
  readonly flip: { readonly at: number; readonly by: number } | undefined;
  /** Bytes of each piece that is sent separately. */
  readonly split: number | undefined;
}

const share = fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true });

export const mangling: fc.Arbitrary<Mangling> = fc.record({
  cut: mostly(undefined, share),
  flip: mostly(undefined, fc.record({ at: share, by: fc.integer({ min: 1, max: 255 }) })),
  split: mostly(undefined, fc.integer({ min: 1, max: 40 })),
});

export function mangle(data: Buffer, { cut, flip }: Mangling): Buffer {
  const result = Buffer.from(data);
  if (flip !== undefined && result.length > 0) {
    const at = Math.floor(flip.at * result.length);
    result[at] = (result[at] ?? 0) ^ flip.by;
  }
  return cut === undefined ? result : result.subarray(0, Math.floor(cut * result.length));
}

/** Returns the usual value, and another one in one of six cases. */
export function mostly<T, U>(usual: T, other: fc.Arbitrary<U>): fc.Arbitrary<T | U> {
  return fc.oneof({ weight: 5, arbitrary: fc.constant(usual) }, other);
}

export function be16(value: number): Buffer {
  const data = Buffer.alloc(2);
  data.writeUInt16BE(value & 0xffff);
  return data;
}

export function be32(value: number): Buffer {
  const data = Buffer.alloc(4);
  data.writeUInt32BE(value >>> 0);
  return data;
}

export function be64(value: bigint): Buffer {
  const data = Buffer.alloc(8);
  data.writeBigUInt64BE(BigInt.asUintN(64, value));
  return data;
}

const empty = Buffer.alloc(0);
