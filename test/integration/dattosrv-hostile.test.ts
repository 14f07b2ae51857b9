/**
 * Tests dattosrv against hostile clients: silent ones, ones that do not read, ones that disconnect in the
 * middle. They may cost bounded memory, but no other client loses its service, and the server stops promptly.
 * The sockets are real, and memory is measured by the kernel.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { NBD_CMD, NBD_OPT } from '../../src/nbd/protocol/constants.ts';
import { encodeClientFlags, encodeOption } from '../../src/nbd/protocol/handshake.ts';
import { encodeInfoRequest } from '../../src/nbd/protocol/options.ts';
import { encodeRequest, REQUEST_BYTES } from '../../src/nbd/protocol/request.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { waitFor } from '../helpers/daemon.ts';
import { type Dattosrv, startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';

const flags = encodeClientFlags(3);
const go = encodeOption(NBD_OPT.GO, encodeInfoRequest({ name: 'disk', requests: [] }));
const list = encodeOption(NBD_OPT.LIST);

function ask(type: number, offset: number, length: number): Buffer {
  const header = Buffer.alloc(REQUEST_BYTES);
  encodeRequest(header, 0, 0, type, 0, 1, offset, length);
  return header;
}

/** Returns a client that sends and then reads nothing. */
async function client(t: EndingTest, server: Dattosrv, ...parts: Buffer[]): Promise<Socket> {
  const socket = connect(server.port, '127.0.0.1');
  atEnd(t, () => void socket.destroy());
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  socket.pause();
  for (const part of parts) socket.write(part);
  return socket;
}

function memory(server: Dattosrv, field: 'VmRSS' | 'VmHWM'): number {
  const status = readFileSync(`/proc/${server.pid}/status`, 'utf8');
  return (Number(new RegExp(`^${field}:\\s*(\\d+) kB`, 'm').exec(status)?.[1]) * 1024) / MiB;
}

/** Returns the number of sockets that the server has open. */
function sockets(server: Dattosrv): number {
  const folder = `/proc/${server.pid}/fd`;
  return readdirSync(folder).filter((fd) => {
    try {
      return readlinkSync(join(folder, fd)).startsWith('socket:');
    } catch {
      return false;
    }
  }).length;
}

async function stopsWithin(server: Dattosrv, ms: number): Promise<void> {
  const begin = performance.now();
  assert.equal(await server.stop(), 0);
  const took = performance.now() - begin;
  assert.ok(took < ms, `SIGTERM took ${Math.round(took)} ms`);
}

function imageDirectory(t: EndingTest, bytes: number): string {
  const directory = mkdtempSync(join(tmpdir(), 'hostile-images-'));
  atEnd(t, () => rmSync(directory, { recursive: true, force: true }));
  writeFileSync(join(directory, 'disk'), Buffer.alloc(bytes, 7));
  return directory;
}

test('silent clients do not block other clients, and leave nothing behind', async (t) => {
  const server = await startDattosrv(t, ['--create'], { tcp: true });
  await exec('nbdinfo', ['--size', server.uriOf('disk@1M')]);
  const before = sockets(server);
  const silent: Socket[] = [];
  for (let i = 0; i < 400; i++) silent.push(await client(t, server, ...(i % 2 === 0 ? [] : [flags])));
  const begin = performance.now();
  await exec('nbdinfo', ['--size', server.uriOf('disk')]);
  assert.ok(performance.now() - begin < 10_000);
  // The server's threads close the connections beyond the limit, each in its own time.
  await waitFor('no more than the limit are kept', 10_000, () => sockets(server) - before < 100);
  for (const socket of silent) socket.destroy();
  await waitFor('the sockets are closed', 10_000, () => sockets(server) <= before);
  await stopsWithin(server, 5000);
});

test('clients that do not read replies, or do not send payloads, cost bounded memory', async (t) => {
  const directory = imageDirectory(t, 64 * MiB);
  const server = await startDattosrv(t, ['--threads', '2'], { tcp: true, directory });
  const idle = memory(server, 'VmRSS');
  const reading = Array.from({ length: 4 }, () => ask(NBD_CMD.READ, 0, 32 * MiB));
  for (let i = 0; i < 40; i++) await client(t, server, flags, go, ...reading);
  const payload = Buffer.alloc(31 * MiB);
  for (let i = 0; i < 20; i++) await client(t, server, flags, go, ask(NBD_CMD.WRITE, 0, 32 * MiB), payload);
  // This client reads everything. It has to wait until the server drops those that hold the memory.
  const copied = await exec('nbdcopy', ['--request-size=33554432', server.uriOf('disk'), 'null:']);
  assert.equal(copied.code, 0);
  const peak = memory(server, 'VmHWM');
  t.diagnostic(`idle ${idle.toFixed(0)} MiB, at most ${peak.toFixed(0)} MiB`);
  assert.ok(peak - idle < 300, `idle ${idle} MiB, at most ${peak} MiB`);
  await stopsWithin(server, 10_000);
});

test('many unread lists of many images cost bounded memory, and SIGTERM ends them', async (t) => {
  const directory = imageDirectory(t, MiB);
  for (let i = 0; i < 3000; i++) {
    const path = join(directory, `image-with-a-rather-long-name-${String(i).padStart(8, '0')}.img`);
    writeFileSync(path, '');
    truncateSync(path, MiB);
  }
  const server = await startDattosrv(t, ['--threads', '2'], { tcp: true, directory });
  const idle = memory(server, 'VmRSS');
  const lists = Buffer.concat(Array.from({ length: 250 }, () => list));
  for (let i = 0; i < 10; i++) await client(t, server, flags, lists);
  await exec('nbdinfo', ['--size', server.uriOf('disk')]);
  const peak = memory(server, 'VmHWM');
  t.diagnostic(`idle ${idle.toFixed(0)} MiB, at most ${peak.toFixed(0)} MiB`);
  assert.ok(peak - idle < 150, `idle ${idle} MiB, at most ${peak} MiB`);
  await stopsWithin(server, 5000);
});

test('a TLS client that disconnects within its first message is noticed at once', async (t) => {
  const scratch = mkdtempSync(join(tmpdir(), 'hostile-tls-'));
  atEnd(t, () => rmSync(scratch, { recursive: true, force: true }));
  const psk = join(scratch, 'keys');
  writeFileSync(psk, `alice:${'5a'.repeat(32)}\n`, { mode: 0o600 });
  const server = await startDattosrv(t, ['--tls-psk', psk], { tcp: true });
  const before = sockets(server);
  const begin = performance.now();
  const hello = Buffer.from([22, 3, 1, 1, 0, 1, 0, 0, 0xfc, 3, 3]);
  for (let i = 0; i < 5; i++) {
    const socket = await client(t, server, flags, encodeOption(NBD_OPT.STARTTLS));
    // The greeting, and the reply that starts TLS.
    await waitFor('the reply', 5000, () => socket.readableLength > 18 || socket.read() !== null);
    socket.write(hello);
    if (i % 2 === 0) socket.end();
    else socket.destroy();
  }
  await waitFor('the sockets are closed', 4000, () => sockets(server) <= before);
  assert.ok(performance.now() - begin < 8000);
  await stopsWithin(server, 5000);
});
