/**
 * Tests the NBD client against foreign servers: nbdkit, qemu-nbd and the reference nbd-server. Foreign
 * programs check the written data (the image file itself, nbdcopy, nbdinfo, nbdkit's log). Debian packages:
 * nbdkit qemu-utils nbd-server libnbd-bin gnutls-bin.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { AgentError } from '../../src/base/errors.ts';
import type { Extent } from '../../src/base/extents.ts';
import { targetContract } from '../contracts/target.contract.ts';
import { connectWithBackoff } from '../../src/nbd/client/backoff.ts';
import { connectNbd, describeExport, listExports } from '../../src/nbd/client/connect.ts';
import { parseNbdUri } from '../../src/nbd/client/uri.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import {
  type NbdServerProcess,
  freePort,
  isAlive,
  temporaryDirectory,
  waitFor,
} from '../helpers/nbd-process.ts';
import { imageIn, withQuery, withServer, withTarget } from '../helpers/nbd-client.ts';
import { startNbdServer, startPlainNbdServer } from '../helpers/nbd-server.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { startQemuNbd } from '../helpers/qemu-nbd.ts';
import { makeTlsFiles } from '../helpers/tls-files.ts';

const directory = temporaryDirectory('nbd-client');
chmodSync(directory, 0o755);
const tls = makeTlsFiles(join(directory, 'tls'));
after(() => rmSync(directory, { recursive: true, force: true }));

const image = (name: string, size?: number): string => imageIn(directory, name, size);

// ---- the contract of Target ------------------------------------------------------------------------------------

const certificates = `tls-certificates=${tls.directory}`;
const servers: [
  name: string,
  start: () => Promise<NbdServerProcess>,
  query?: string | undefined,
  exportName?: string,
][] = [
  ['nbdkit memory', () => startNbdkit(['memory', '16M'], { tcp: true })],
  ['nbdkit memory without structured replies', () => startNbdkit(['--no-sr', 'memory', '16M'])],
  ['nbdkit file', () => startNbdkit(['file', image('contract-nbdkit')])],
  [
    'nbdkit with blocksize-policy',
    () =>
      startNbdkit([
        '--filter=blocksize-policy',
        'memory',
        '16M',
        'blocksize-minimum=4096',
        'blocksize-preferred=65536',
        'blocksize-maximum=1M',
        'blocksize-error-policy=error',
      ]),
  ],
  [
    'nbdkit with certificates',
    () => startNbdkit([`--tls-certificates=${tls.directory}`, 'memory', '16M'], { tcp: true, tls: true }),
    certificates,
  ],
  ['qemu-nbd', () => startQemuNbd(['--format=raw', '--discard=unmap', image('contract-qemu')])],
  [
    'nbd-server',
    () =>
      startNbdServer({
        exports: { disk: { exportname: image('contract-nbd-server'), flush: true, fua: true, trim: true } },
      }),
    undefined,
    'disk',
  ],
  ['plain nbd-server', () => startPlainNbdServer(image('contract-plain'))],
];
for (const [name, start, query, exportName] of servers)
  targetContract(name, async () => {
    const server = await start();
    try {
      const uri = query === undefined ? server.uri : withQuery(server.uri, query);
      const address = parseNbdUri(uri);
      const target = await connectNbd(exportName === undefined ? address : { ...address, exportName });
      return {
        target,
        close: async () => {
          target.destroy();
          await server.stop();
        },
      };
    } catch (error) {
      await server.stop();
      throw error;
    }
  });

// ---- what others see -------------------------------------------------------------------------------------------

test('foreign programs read an image that we wrote, and we read theirs', async () => {
  const path = image('written', 4 * MiB);
  const copy = join(directory, 'copy');
  const data = Buffer.alloc(MiB, 'forty-two ');
  await withTarget(startNbdkit(['file', path]), async (target, server) => {
    for (let at = 0; at < data.length; at += 65536)
      await target.write(MiB + at, data.subarray(at, at + 65536));
    await target.writeZeroes(MiB + 4096, 8192, { hole: true });
    await target.flush();
    const expected = Buffer.alloc(4 * MiB);
    data.copy(expected, MiB);
    expected.fill(0, MiB + 4096, MiB + 12288);
    assert.ok(readFileSync(path).equals(expected), 'the file itself');
    execFileSync('nbdcopy', [server.uri, copy]);
    assert.ok(readFileSync(copy).equals(expected), 'nbdcopy');
    const noise = Buffer.alloc(4 * MiB, 'written by nbdcopy ');
    writeFileSync(copy, noise);
    execFileSync('nbdcopy', [copy, server.uri]);
    assert.ok(Buffer.from(await target.read(0, 4 * MiB)).equals(noise), 'read by us');
  });
});

test('zero extents equal those of nbdinfo', async () => {
  await withTarget(
    startNbdkit(['sparse-random', '256M', 'seed=7', 'runlength=1048576', 'percent=20']),
    async (target, server) => {
      const ours: Extent[] = [];
      for await (const extent of target.zeroExtents(0, target.size)) ours.push(extent);
      const map = JSON.parse(
        execFileSync('nbdinfo', ['--map', '--json', server.uri], { encoding: 'utf8' }),
      ) as {
        offset: number;
        length: number;
        type: number;
      }[];
      const theirs: { offset: number; length: number }[] = [];
      for (const { offset, length, type } of map) {
        if ((type & 2) === 0) continue;
        const last = theirs.at(-1);
        if (last !== undefined && last.offset + last.length === offset) last.length += length;
        else theirs.push({ offset, length });
      }
      assert.ok(ours.length > 10);
      assert.deepEqual(ours, theirs);
    },
  );
});

test("commands and flags equal those in nbdkit's log", async () => {
  const logFile = join(directory, 'requests.log');
  await withTarget(startNbdkit(['--filter=log', 'memory', '16M', `logfile=${logFile}`]), async (target) => {
    await target.write(0, Buffer.alloc(4096, 1), { fua: true });
    await target.writeZeroes(4096, 4096, { hole: true });
    await target.writeZeroes(8192, 4096, { hole: false });
    await target.trim(12288, 4096);
    await target.flush();
    await target.close();
  });
  const log = readFileSync(logFile, 'utf8');
  assert.match(log, /Write id=\d+ offset=0x0 count=0x1000 fua=1/);
  assert.match(log, /Zero id=\d+ offset=0x1000 count=0x1000 trim=1/);
  assert.match(log, /Zero id=\d+ offset=0x2000 count=0x1000 trim=0/);
  assert.match(log, /Trim id=\d+ offset=0x3000 count=0x1000/);
  assert.match(log, /Flush id=/);
});

test('a polite disconnect lets nbdkit exit with its last client', async () => {
  await withServer(startNbdkit(['--filter=exitlast', 'memory', '16M']), async (server) => {
    const target = await connectNbd(parseNbdUri(server.uri));
    await target.write(0, Buffer.alloc(512));
    await target.close();
    await waitFor(() => !isAlive(server.pid), 'nbdkit ended');
  });
});

// ---- faults ----------------------------------------------------------------------------------------------------

test('errors of the server have codes', async () => {
  for (const [errno, code] of [
    ['ENOSPC', 'TARGET_FULL'],
    ['EPERM', 'TARGET_READ_ONLY'],
    ['EIO', 'TARGET_WRITE_ERROR'],
  ] as const)
    await withTarget(
      startNbdkit(['--filter=error', 'memory', '16M', `error-pwrite=${errno}`, 'error-pwrite-rate=100%']),
      async (target) => {
        await assert.rejects(target.write(0, Buffer.alloc(512)), { code, message: new RegExp(errno) });
        assert.equal((await target.read(0, 512)).length, 512, 'and the connection lives on');
      },
    );
});

test('a server that is slower than the time-out is abandoned', async () => {
  await withTarget(
    startNbdkit(['--filter=delay', 'memory', '16M', 'wdelay=20']),
    async (target) => {
      await target.read(0, 512);
      await assert.rejects(target.write(0, Buffer.alloc(512)), { code: 'NBD_CONNECTION_LOST' });
    },
    { timeoutMs: 300 },
  );
});

test('after the server is killed the connection is lost, and works again when it is back', async () => {
  await withServer(startNbdkit(['--filter=delay', 'memory', '16M', 'wdelay=20']), async (server) => {
    const address = parseNbdUri(server.uri);
    const target = await connectNbd(address);
    const writes = Array.from({ length: 16 }, (_, i) => target.write(i * 65536, Buffer.alloc(65536)));
    const outcomes = Promise.allSettled(writes);
    await server.kill();
    for (const outcome of await outcomes) {
      assert.equal(outcome.status, 'rejected');
      assert.equal((outcome.reason as AgentError).code, 'NBD_CONNECTION_LOST');
    }
    const attempts: string[] = [];
    let second: Promise<NbdServerProcess> | undefined;
    const found = connectWithBackoff(address, {
      deadlineMs: 20_000,
      onAttempt: (attempt, error) => {
        attempts.push(error.code);
        if (attempt !== 2) return;
        rmSync(server.socket!);
        second = startNbdkit(['memory', '16M'], { socket: server.socket! });
      },
    });
    try {
      const again = await found;
      await again.write(0, Buffer.alloc(512));
      await again.close();
      assert.deepEqual([...new Set(attempts)], ['TARGET_UNREACHABLE']);
    } finally {
      await (await second)?.stop();
    }
  });
});

test('no server at the address is TARGET_UNREACHABLE', async () => {
  const port = await freePort();
  await assert.rejects(connectNbd(parseNbdUri(`nbd://127.0.0.1:${port}/`)), {
    code: 'TARGET_UNREACHABLE',
    message: /ECONNREFUSED/,
  });
  await assert.rejects(connectNbd(parseNbdUri(`nbd+unix:///?socket=${directory}/nothing`)), {
    code: 'TARGET_UNREACHABLE',
    message: /ENOENT/,
  });
});

// ---- handshakes ------------------------------------------------------------------------------------------------

test('our own server is supported too', async (t) => {
  const server = await startDattosrv(t, ['--create']);
  const target = await connectNbd(parseNbdUri(server.uriOf('disk@4M')));
  const data = Buffer.alloc(MiB, 'from one half to the other ');
  await target.write(MiB, data);
  await target.flush();
  assert.ok(Buffer.from(await target.read(MiB, MiB)).equals(data));
  const zeros: Extent[] = [];
  for await (const extent of target.zeroExtents(0, target.size)) zeros.push(extent);
  assert.deepEqual(zeros, [
    { offset: 0, length: MiB },
    { offset: 2 * MiB, length: 2 * MiB },
  ]);
  await target.close();
});

test('the oldstyle handshake is supported', async () => {
  // nbdkit 1.32 offers flush in oldstyle, but refuses every flush.
  await withTarget(startNbdkit(['--oldstyle', 'memory', '16M'], { tcp: true }), async (target) => {
    assert.equal(target.negotiated.style, 'oldstyle');
    await target.write(4096, Buffer.alloc(512, 9));
    assert.equal((await target.read(4096, 512))[511], 9);
  });
});

test('exports are listed, described and chosen by name', async () => {
  const exports = {
    one: { exportname: image('one', 5 * MiB), flush: true },
    'two words': { exportname: image('two', 6 * MiB), readonly: true },
  };
  await withServer(startNbdServer({ exports }), async (server) => {
    const names = (await listExports(parseNbdUri(server.uri))).map((listed) => listed.name);
    assert.deepEqual(names.sort(), ['one', 'two words']);
    const one = await connectNbd(parseNbdUri(`${server.uri}/one`));
    assert.equal(one.size, 5 * MiB);
    assert.equal(one.abilities.flush, true);
    await one.close();
    const two = await connectNbd(parseNbdUri(`${server.uri}/two%20words`));
    assert.equal(two.size, 6 * MiB);
    assert.equal(two.readOnly, true);
    await two.close();
    await assert.rejects(connectNbd(parseNbdUri(`${server.uri}/three`)), { code: 'NBD_EXPORT_UNKNOWN' });
  });
  await withServer(startQemuNbd(['--format=raw', image('described')]), async (server) => {
    const described = await describeExport(parseNbdUri(server.uri));
    assert.equal(described.size, 16 * MiB);
    assert.equal(described.blockSizes?.maximum, 32 * MiB);
  });
});

test("Debian's plain nbd-server: its limits are reported", async () => {
  const path = image('debian');
  await withTarget(startPlainNbdServer(path), (target) => {
    assert.equal(target.size, 16 * MiB, 'NBD_OPT_INFO would have said 0');
    assert.equal(target.abilities.flush, false);
    assert.equal(target.advice, undefined);
    return Promise.resolve();
  });
  chownSync(path, 0, 0);
  chmodSync(path, 0o644);
  await withTarget(startPlainNbdServer(path), async (target) => {
    assert.equal(target.readOnly, true);
    assert.match(target.advice ?? '', /chown nbd/);
    await assert.rejects(target.write(0, Buffer.alloc(512)), { code: 'TARGET_READ_ONLY', hint: /chown nbd/ });
  });
  chmodSync(path, 0o600);
  await withServer(startPlainNbdServer(path), async (server) => {
    await assert.rejects(connectNbd(parseNbdUri(server.uri)), { code: 'NBD_REFUSED', hint: /chown nbd/ });
  });
});
