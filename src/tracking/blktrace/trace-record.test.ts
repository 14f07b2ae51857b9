import assert from 'node:assert/strict';
import test from 'node:test';
import fc from 'fast-check';
import { RecordParser, TraceFormatError, type TraceRecord } from './trace-record.ts';

interface Written extends TraceRecord {
  readonly data: readonly number[];
  readonly cgroup: boolean;
}

const written = fc.record<Written>({
  time: fc.nat(),
  sector: fc.integer({ min: 0, max: 2 ** 44 }),
  bytes: fc.integer({ min: 0, max: 0xffff_fe00 }),
  action: fc.integer({ min: 0, max: 17 }),
  categories: fc.integer({ min: 0, max: 0xffff }),
  data: fc.array(fc.nat({ max: 255 }), { maxLength: 60 }),
  cgroup: fc.boolean(),
});

/** Encodes struct blk_io_trace as in the header file. */
function encode({ time, sector, bytes, action, categories, data, cgroup }: Written): Buffer {
  const all = cgroup ? [1, 0, 0, 0, 0, 0, 0, 0, ...data] : data;
  const record = Buffer.alloc(48 + all.length, 0xee);
  record.writeUInt32LE(0x65617407, 0);
  record.writeBigUInt64LE(BigInt(time), 8);
  record.writeBigUInt64LE(BigInt(sector), 16);
  record.writeUInt32LE(bytes, 24);
  record.writeUInt16LE(action | (cgroup ? 0x100 : 0), 28);
  record.writeUInt16LE(categories, 30);
  record.writeUInt16LE(all.length, 46);
  Buffer.from(all).copy(record, 48);
  return record;
}

test('records are read whole, wherever the reads split them', () => {
  fc.assert(
    fc.property(
      fc.array(written, { maxLength: 12 }),
      fc.array(fc.nat(), { maxLength: 12 }),
      (records, cuts) => {
        const inOrder = [...records].sort((a, b) => a.time - b.time);
        const stream = Buffer.concat(inOrder.map(encode));
        const ends = [...cuts.map((cut) => cut % (stream.length + 1)), stream.length].sort((a, b) => a - b);
        const found: object[] = [];
        const parser = new RecordParser((record, data) => found.push({ ...record, data: [...data] }));
        let from = 0;
        for (const end of ends) {
          // The buffer is used again for each read.
          const read = Buffer.from(stream.subarray(from, end));
          parser.feed(read);
          read.fill(0xff);
          from = end;
        }
        assert.deepEqual(
          found,
          inOrder.map(({ time, sector, bytes, action, categories, data }) => ({
            ...{ time, sector, bytes, action, categories, data },
          })),
        );
        assert.equal(parser.pending, 0);
      },
    ),
  );
});

test('one byte at a time', () => {
  const record = encode({
    time: 5,
    sector: 8,
    bytes: 4096,
    action: 8,
    categories: 0x82,
    data: [1, 2],
    cgroup: true,
  });
  let records = 0;
  const parser = new RecordParser(() => records++);
  for (const byte of Buffer.concat([record, record])) parser.feed(Buffer.from([byte]));
  assert.equal(records, 2);
});

test('bytes that are not a record are refused with the reason', () => {
  const record = encode({
    time: 5,
    sector: 8,
    bytes: 4096,
    action: 8,
    categories: 2,
    data: [],
    cgroup: false,
  });
  const refusal = (stream: Buffer, message: RegExp) =>
    assert.throws(
      () => new RecordParser(() => undefined).feed(stream),
      (thrown) => thrown instanceof TraceFormatError && message.test(thrown.message),
    );
  const swapped = Buffer.from(record);
  swapped.subarray(0, 4).swap32();
  refusal(swapped, /byte order/);
  const other = Buffer.from(record);
  other[0] = 6;
  refusal(other, /version 6, not 7/);
  refusal(Buffer.alloc(48), /0x0 where/);
  const older = Buffer.from(record);
  older.writeUInt32LE(4, 8);
  refusal(Buffer.concat([record, older]), /older/);
});
