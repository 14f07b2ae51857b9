/** Tests the log's state against a model that writes records round the log as the kernel does. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { logFault, type LogReader } from './log.ts';

const uuid = Buffer.from('00112233445566778899aabbccddeeff', 'hex');
const transaction = 0x69;

/** A log that is written from its start, round and round. */
class ModelLog {
  readonly blocks: number;
  readonly data: Buffer;
  #cycle = 1;
  #head = 0;

  constructor(blocks: number) {
    this.blocks = blocks;
    this.data = Buffer.alloc(blocks * 512);
  }

  /** The place of the next record. */
  get position(): { cycle: number; block: number } {
    return { cycle: this.#cycle, block: this.#head };
  }

  /** Appends a record of `operations` over `body`. Blocks past the physical end belong to the next cycle. */
  write(body: Buffer, operations: number, tail = this.position): void {
    const blocks = Math.ceil(body.length / 512);
    const header = Buffer.alloc(512);
    header.writeUInt32BE(0xfeedbabe, 0);
    header.writeUInt32BE(this.#cycle, 4);
    header.writeUInt32BE(2, 8);
    header.writeUInt32BE(body.length, 12);
    header.writeUInt32BE(this.#cycle, 16);
    header.writeUInt32BE(this.#head, 20);
    header.writeUInt32BE(tail.cycle, 24);
    header.writeUInt32BE(tail.block, 28);
    header.writeUInt32BE(operations, 40);
    header.writeUInt32BE(1, 300);
    uuid.copy(header, 304);
    header.writeUInt32BE(32768, 320);
    const padded = Buffer.alloc(blocks * 512);
    body.copy(padded);
    for (let i = 0; i < blocks; i++) padded.copy(header, 44 + i * 4, i * 512, i * 512 + 4);
    this.#put(header, false);
    for (let i = 0; i < blocks; i++) this.#put(padded.subarray(i * 512, (i + 1) * 512), true);
  }

  #put(block: Buffer, stamped: boolean): void {
    if (stamped) block.writeUInt32BE(this.#cycle, 0);
    block.copy(this.data, this.#head * 512);
    this.#head++;
    if (this.#head < this.blocks) return;
    this.#head = 0;
    this.#cycle++;
  }

  reader(): LogReader {
    return {
      blocks: this.blocks,
      read: (block, count) => {
        if (block < 0 || count < 1 || block + count > this.blocks)
          return Promise.reject(new RangeError(`${block}+${count} of ${this.blocks}`));
        return Promise.resolve(Buffer.from(this.data.subarray(block * 512, (block + count) * 512)));
      },
      uuid,
      version2: true,
    };
  }
}

function operation(client: number, flags: number, body: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(12);
  header.writeUInt32BE(0x1234, 0);
  header.writeUInt32BE(body.length, 4);
  header.set([client, flags], 8);
  return Buffer.concat([header, body]);
}

const unmountRecord = operation(0xaa, 0x20, Buffer.from('556e000000000000', 'hex'));

/** Returns a transaction that holds one buffer of a sector at `address`; 0 is the superblock. */
function bufferTransaction(address: number, item = 0x123c, flags = 0): Buffer {
  const header = Buffer.alloc(16);
  header.writeUInt32LE(0x5452414e, 0);
  header.writeUInt32LE(2, 12);
  const format = Buffer.alloc(24);
  format.writeUInt16LE(item, 0);
  format.writeUInt16LE(2, 2);
  format.writeUInt16LE(1, 6);
  format.writeBigInt64LE(BigInt(address), 8);
  return Buffer.concat([
    operation(transaction, 0x01),
    operation(transaction, 0, header),
    operation(transaction, 0, format),
    operation(transaction, flags, Buffer.alloc(384, 0xab)),
    operation(transaction, 0x02),
  ]);
}

const lengths = fc.array(fc.integer({ min: 1, max: 30 }), { maxLength: 40 });

test('an unmount record at the head makes a log clean, wherever the head is and however often it wrapped', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 64, max: 200 }), lengths, async (blocks, records) => {
      const log = new ModelLog(blocks);
      for (const length of records) log.write(Buffer.alloc(length * 512, 0x11), 3);
      if (records.length > 0) assert.match((await logFault(log.reader())) ?? '', /dirty/);
      log.write(unmountRecord, 1);
      assert.equal(await logFault(log.reader()), undefined);
      log.write(Buffer.alloc(900, 0x11), 3);
      assert.match((await logFault(log.reader())) ?? '', /dirty/);
    }),
    { numRuns: 500 },
  );
});

test('a freeze leaves a log that counts as clean, unless the log holds more than the superblock', async () => {
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 64, max: 200 }), lengths, async (blocks, records) => {
      const log = new ModelLog(blocks);
      for (const length of records) log.write(Buffer.alloc(length * 512, 0x11), 3);
      let tail = log.position;
      log.write(bufferTransaction(0), 5, tail);
      const second = log.position;
      log.write(bufferTransaction(0), 5, tail);
      // A record of two blocks that wraps around the end is not examined: dirty is the safe answer.
      const wraps = tail.block + 4 > blocks && tail.block + 4 !== blocks && tail.block + 2 !== blocks;
      if (!wraps) assert.equal(await logFault(log.reader()), undefined);
      tail = second;
      log.write(bufferTransaction(8), 5, tail);
      assert.match((await logFault(log.reader())) ?? '', /dirty/);
    }),
    { numRuns: 300 },
  );
  for (const body of [
    bufferTransaction(16),
    bufferTransaction(0, 0x123b),
    bufferTransaction(0, 0x123c, 0x04),
    Buffer.concat([bufferTransaction(0), bufferTransaction(0)]),
  ]) {
    const log = new ModelLog(64);
    log.write(body, body.length > 600 ? 10 : 5);
    assert.match((await logFault(log.reader())) ?? '', /dirty/);
  }
});

test('a hole before the head, as a crash leaves it, is not clean', async () => {
  const log = new ModelLog(100);
  for (let i = 0; i < 12; i++) log.write(Buffer.alloc(9 * 512, 0x11), 3);
  log.write(unmountRecord, 1);
  assert.equal(await logFault(log.reader()), undefined);
  log.data.writeUInt32BE(1, 10 * 512);
  assert.notEqual(await logFault(log.reader()), undefined);
});

test('garbage never causes a crash, and does not make a dirty log clean', async () => {
  const edits = fc.array(fc.tuple(fc.nat(), fc.oneof(fc.nat(40), fc.integer({ min: 0, max: 0xffffffff }))), {
    minLength: 1,
    maxLength: 8,
  });
  await fc.assert(
    fc.asyncProperty(edits, fc.boolean(), async (list, cover) => {
      const log = new ModelLog(80);
      for (let i = 0; i < 9; i++) log.write(Buffer.alloc(7 * 512, 0x11), 3);
      if (cover) log.write(bufferTransaction(0), 5);
      for (const [at, value] of list) log.data.writeUInt32BE(value, (at % (80 * 128)) * 4);
      const fault = await logFault(log.reader());
      if (!cover) assert.notEqual(fault, undefined);
    }),
    { numRuns: 1000 },
  );
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ minLength: 32 * 512, maxLength: 32 * 512 }), async (bytes) => {
      const log = new ModelLog(32);
      log.data.set(bytes);
      assert.notEqual(await logFault(log.reader()), undefined);
    }),
    { numRuns: 50 },
  );
});
