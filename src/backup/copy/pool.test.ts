/**
 * Proves that a server that comes back with another image is never trusted, whichever connection it was, and whatever
 * the job was doing. Also proves that a job continues without connections that it does not need.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { atEnd } from '../../../test/helpers/cleanup.ts';
import { listenScripted } from '../../../test/helpers/scripted-listener.ts';
import { Bitmap } from '../../base/bitmap.ts';
import { MiB } from '../../base/bytes.ts';
import type { Script } from '../../../test/helpers/scripted-nbd-server.ts';
import { NBD_CMD, NBD_FLAG } from '../../nbd/protocol/constants.ts';
import { createFingerprintFile, fingerprintUnit } from '../../tracking/fingerprints.ts';
import { parseTarget } from './targets.ts';
import { CopyPool } from './pool.ts';
import { SpoolRoom } from './spool-room.ts';

const size = 4 * MiB;
const unit = 4096;
const units = size / fingerprintUnit;

interface Bench {
  readonly pool: CopyPool;
  readonly data: Buffer;
  readonly distrusted: () => number;
}

async function bench(
  t: TestContext,
  uri: string,
  options: { threads?: number; known?: readonly number[]; zeroUnits?: number; room?: number } = {},
): Promise<Bench> {
  const directory = mkdtempSync(join(tmpdir(), 'pool-'));
  atEnd(t, () => rmSync(directory, { recursive: true, force: true }));
  const data = randomBytes(size).fill(0, 0, (options.zeroUnits ?? 0) * fingerprintUnit);
  const sourcePath = join(directory, 'source');
  writeFileSync(sourcePath, data);
  const fingerprintPath = join(directory, 'prints');
  createFingerprintFile(fingerprintPath, size);
  const pool = new CopyPool({
    sourcePath,
    deviceSize: size,
    livePartitions: [],
    target: parseTarget(uri),
    threads: options.threads ?? 1,
    unit,
    fingerprintPath,
    key: Buffer.alloc(32, 7),
    rate: undefined,
    onReadError: 'fail',
    room: SpoolRoom.create(options.room ?? 4 * MiB),
    reconnectMs: 10_000,
  });
  atEnd(t, () => pool.close());
  await pool.open();
  let distrusted = 0;
  pool.expect({
    known: () => marked(options.known ?? [], fingerprintUnit),
    distrust: () => {
      distrusted++;
      return Promise.resolve();
    },
  });
  return { pool, data, distrusted: () => distrusted };
}

/** Whole fingerprint units, by number. */
function marked(numbers: readonly number[], bytes = unit): Bitmap {
  const set = new Bitmap(size, bytes);
  for (const number of numbers) set.mark(number * fingerprintUnit, fingerprintUnit);
  return set;
}

/** Blocks of 4 KiB at the start of each of these fingerprint units. */
function blocks(numbers: readonly number[]): Bitmap {
  const set = new Bitmap(size, unit);
  for (const number of numbers) set.mark(number * fingerprintUnit, unit);
  return set;
}

const range = (from: number, to: number): number[] => Array.from({ length: to - from }, (_, i) => from + i);

/** Ends the connection once, at the request that `at` chooses. */
function cutOnce(at: (type: number) => boolean, then: () => void = () => undefined): Script['request'] {
  let cut = false;
  return (request, _payload, server) => {
    if (cut || !at(request.type)) return false;
    cut = true;
    then();
    server.hangUp();
    return true;
  };
}

const mismatch = { code: 'TARGET_MISMATCH' };

test('if the same image comes back, the job continues and loses nothing', async (t) => {
  const memory = Buffer.alloc(size);
  let armed = false;
  const request = cutOnce((type) => armed && type === NBD_CMD.WRITE);
  const server = await listenScripted(t, () => ({ memory, request }));
  const { pool, data, distrusted } = await bench(t, server.uri);
  await pool.copy(marked(range(0, 20)));
  armed = true;
  await pool.copy(marked(range(20, units)));
  assert.deepEqual([pool.reconnects, distrusted()], [1, 0]);
  assert.ok(memory.equals(data));
  assert.equal(pool.doubtful?.bytes(), 20 * fingerprintUnit);
});

for (const [what, first, second] of [
  ['whole units', marked(range(0, 20)), marked(range(20, units))],
  ['single blocks', blocks(range(0, 20)), blocks(range(20, units))],
  ['one block', blocks([3]), blocks([5])],
] as const)
  test(`the job fails if an image older by one flush comes back after ${what} were sent`, async (t) => {
    const memory = randomBytes(size);
    const older = Buffer.from(memory);
    let armed = false;
    const request = cutOnce(
      (type) => armed && type === NBD_CMD.WRITE,
      () => older.copy(memory),
    );
    const server = await listenScripted(t, () => ({ memory, request }));
    const { pool, distrusted } = await bench(t, server.uri);
    await pool.copy(first);
    armed = true;
    await assert.rejects(pool.copy(second), mismatch);
    assert.equal(distrusted(), 1);
  });

test('the job fails if an image older by the last of many flushes comes back', async (t) => {
  const memory = Buffer.alloc(size);
  const older = Buffer.alloc(size);
  let armed = false;
  const request = cutOnce(
    (type) => armed && type === NBD_CMD.WRITE,
    () => older.copy(memory),
  );
  const server = await listenScripted(t, () => ({ memory, request }));
  const { pool } = await bench(t, server.uri);
  for (const number of range(0, 40)) {
    memory.copy(older);
    await pool.copy(marked([number]));
  }
  armed = true;
  await assert.rejects(pool.copy(marked([50])), mismatch);
});

test('the job fails if an older image comes back that lacks only zeroed blocks', async (t) => {
  const memory = Buffer.alloc(size, 0xaa);
  const older = Buffer.from(memory);
  let armed = false;
  const request = cutOnce(
    (type) => armed && type === NBD_CMD.WRITE,
    () => older.copy(memory),
  );
  const server = await listenScripted(t, () => ({ memory, request }));
  const { pool } = await bench(t, server.uri, { zeroUnits: 4 });
  await pool.copy(marked(range(0, 4)));
  armed = true;
  await assert.rejects(pool.copy(marked([9])), mismatch);
});

test('content of the target from before the job is compared too', async (t) => {
  const memory = Buffer.alloc(size);
  let armed = false;
  const request = cutOnce(
    (type) => armed && type === NBD_CMD.WRITE,
    () => memory.fill(0x11, 2 * fingerprintUnit, 2 * fingerprintUnit + 1),
  );
  const server = await listenScripted(t, () => ({ memory, request }));
  const { pool, distrusted } = await bench(t, server.uri, { known: [2] });
  await pool.copy(marked([2]));
  // As if another job had sent it: this job has no witness of it any more.
  await pool.trim(marked([2]));
  armed = true;
  await assert.rejects(pool.copy(marked([3])), mismatch);
  assert.equal(distrusted(), 1);
});

test('blocks that were overwritten, kept in the freeze or trimmed since then prove nothing', async (t) => {
  const memory = Buffer.alloc(size);
  let armed = false;
  const request = cutOnce((type) => armed && type === NBD_CMD.FLUSH);
  const server = await listenScripted(t, () => ({ memory, request }));
  const { pool, data } = await bench(t, server.uri);
  await pool.copy(marked(range(0, units)));
  await pool.freeze(marked(range(10, 20)), { mayOverflow: false });
  armed = true;
  await pool.sendSpool(marked(range(10, 20)), true);
  assert.equal(pool.reconnects, 1);
  assert.ok(memory.equals(data));
});

test('the job fails if one of two connections reaches an older copy after the reconnect', async (t) => {
  const memory = Buffer.alloc(size);
  const older = Buffer.alloc(size);
  let armed = false;
  const request = cutOnce((type) => armed && type === NBD_CMD.WRITE);
  const server = await listenScripted(t, (connection) => ({
    memory: connection === 4 ? older : memory,
    request,
  }));
  const { pool, distrusted } = await bench(t, server.uri, { threads: 2 });
  await pool.copy(marked(range(0, 20)));
  armed = true;
  await assert.rejects(pool.copy(marked(range(20, units))), mismatch);
  assert.deepEqual([server.connections, distrusted()], [4, 1]);
});

test('an older copy that comes back while the image is read back is found', async (t) => {
  const memory = Buffer.alloc(size);
  const older = Buffer.alloc(size);
  let reads = 0;
  let armed = false;
  const request = cutOnce(
    (type) => armed && type === NBD_CMD.READ && ++reads > 2,
    () => older.copy(memory),
  );
  const server = await listenScripted(t, () => ({ memory, request }));
  const { pool } = await bench(t, server.uri);
  await pool.copy(marked(range(0, units)));
  armed = true;
  await assert.rejects(pool.verify(marked(range(0, units))), mismatch);
});

test('a connection lost at the first block status is made again, and the question repeated', async (t) => {
  const memory = Buffer.alloc(size);
  const request = cutOnce((type) => type === NBD_CMD.BLOCK_STATUS);
  const server = await listenScripted(t, () => ({ memory, request }));
  const { pool } = await bench(t, server.uri);
  await pool.readZeroMap(marked(range(0, units)));
  assert.equal(pool.reconnects, 1);
});

for (const [what, refuse] of [
  ['refuses', (connection: number) => connection === 2],
  ['refuses again after a reconnect', (connection: number) => connection === 4],
] as const)
  test(`if a server ${what} the second connection, the backup uses one`, async (t) => {
    const memory = Buffer.alloc(size);
    let armed = false;
    const request = cutOnce((type) => armed && type === NBD_CMD.WRITE);
    const server = await listenScripted(t, (connection) =>
      refuse(connection) || connection > 4 ? undefined : { memory, request },
    );
    const { pool, data } = await bench(t, server.uri, { threads: 2 });
    armed = refuse(4);
    await pool.copy(marked(range(0, units)));
    assert.ok(memory.equals(data));
    assert.match(pool.refused ?? '', /closed the connection/);
  });

for (const refused of [2, 3])
  test(`if number ${refused} of three connections is refused, the freeze loses no block`, async (t) => {
    const memory = Buffer.alloc(size);
    const server = await listenScripted(t, (connection) => (connection === refused ? undefined : { memory }));
    const { pool, data } = await bench(t, server.uri, { threads: 3 });
    assert.match(pool.refused ?? '', /closed the connection/);
    assert.ok(await pool.stash(marked(range(0, units / 2))));
    const everything = marked(range(0, units));
    await pool.freeze(everything, { mayOverflow: false });
    await pool.sendSpool(everything, true);
    assert.ok(memory.equals(data));
  });

test('blocks that no thread read in the freeze never count as sent', async (t) => {
  const memory = Buffer.alloc(size);
  const server = await listenScripted(t, () => ({ memory }));
  const { pool } = await bench(t, server.uri);
  // As if a thread that has ended had held them.
  pool.stashed.mark(5 * fingerprintUnit, unit);
  await pool.freeze(marked(range(0, 20)), { mayOverflow: false });
  await assert.rejects(pool.sendSpool(marked(range(0, 20)), true), {
    code: 'INTERNAL',
    message: /read 1306624 bytes of .* in the freeze, and 1310720 had to be read/,
  });
});

test('blocks that had no room and were sent within the freeze count as read', async (t) => {
  const memory = Buffer.alloc(size);
  const server = await listenScripted(t, () => ({ memory }));
  const { pool, data } = await bench(t, server.uri, { threads: 2, room: MiB });
  const everything = marked(range(0, units));
  const { overflow } = await pool.freeze(everything, { mayOverflow: true });
  assert.ok(overflow >= 3 * MiB);
  await pool.sendSpool(everything, false);
  assert.ok(memory.equals(data));
});

test('if a server comes back without support for several connections, each is flushed, and one stays', async (t) => {
  const memory = Buffer.alloc(size);
  let armed = false;
  const cut = cutOnce((type) => armed && type === NBD_CMD.WRITE);
  const server = await listenScripted(t, (connection) => {
    const written: { offset: number; payload: Uint8Array }[] = [];
    // Each connection has its own cache, and its flush covers nothing else.
    const request: Script['request'] = (request, payload, scripted) => {
      if (cut!(request, payload, scripted)) return true;
      if (request.type === NBD_CMD.FLUSH)
        for (const each of written.splice(0)) memory.set(each.payload, each.offset);
      if (request.type !== NBD_CMD.WRITE) return false;
      written.push({ offset: request.offset, payload: Buffer.from(payload!) });
      scripted.answer(request);
      return true;
    };
    const flags = NBD_FLAG.HAS_FLAGS | NBD_FLAG.SEND_FLUSH | (connection > 2 ? 0 : NBD_FLAG.CAN_MULTI_CONN);
    return { memory, request, flags };
  });
  const { pool, data } = await bench(t, server.uri, { threads: 2 });
  const everything = marked(range(0, units));
  await pool.freeze(everything, { mayOverflow: false });
  armed = true;
  await pool.sendSpool(everything, true);
  assert.deepEqual([pool.reconnects, server.connections], [1, 4]);
  assert.ok(memory.equals(data));
  assert.match(pool.refused ?? '', /without support for several connections/);
  memory.fill(0);
  await pool.copy(everything);
  assert.ok(memory.equals(data), 'one connection sends all');
});

test('neighbours that are in memory already are not kept twice, and the fingerprint of the unit is known', async (t) => {
  const memory = Buffer.alloc(size);
  const server = await listenScripted(t, () => ({ memory }));
  const { pool, data } = await bench(t, server.uri);
  // Too many to be rounded out, so only these blocks are kept.
  const first = marked(range(20, 40));
  first.or(blocks([5]));
  assert.ok(await pool.stash(first));
  const set = first.clone();
  set.mark(5 * fingerprintUnit + unit, unit);
  await pool.freeze(set, { mayOverflow: false });
  const known = await pool.sendSpool(set, true);
  assert.ok(known.has(5));
  const sent = 5 * fingerprintUnit;
  assert.deepEqual(memory.subarray(sent, sent + 2 * unit), data.subarray(sent, sent + 2 * unit));
});

test('memory of blocks that were written since is used again', async (t) => {
  const memory = Buffer.alloc(size);
  const server = await listenScripted(t, () => ({ memory }));
  const { pool, data } = await bench(t, server.uri, { room: 2 * MiB });
  const set = marked(range(0, 24));
  assert.ok(await pool.stash(set));
  assert.deepEqual([pool.roomLeft, pool.roomToReuse], [MiB / 2, 0]);
  pool.forgetStashed(marked(range(0, 20)));
  assert.deepEqual([pool.roomLeft, pool.roomToReuse], [MiB / 2, 20 * fingerprintUnit]);
  await pool.freeze(set, { mayOverflow: false });
  assert.deepEqual([pool.roomLeft, pool.roomToReuse], [MiB / 2, 0]);
  await pool.sendSpool(set, true);
  assert.ok(memory.subarray(0, 24 * fingerprintUnit).equals(data.subarray(0, 24 * fingerprintUnit)));
  assert.deepEqual([pool.roomLeft, pool.roomToReuse], [2 * MiB, 0]);
});

test('a second connection that leads to another image ends the job', async (t) => {
  const server = await listenScripted(t, (connection) => ({ size: connection === 2 ? 2 * size : size }));
  await assert.rejects(bench(t, server.uri, { threads: 2 }), mismatch);
});
