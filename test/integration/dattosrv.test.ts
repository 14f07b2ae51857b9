/**
 * Proves dattosrv against foreign clients: nbdcopy and nbdinfo (libnbd), qemu-img and qemu-io, nbdkit's nbd
 * plugin. strace, stat and the kernel's own errors show its effects on its files.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import {
  existsSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { test } from 'node:test';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { NBD_OPT } from '../../src/nbd/protocol/constants.ts';
import { encodeClientFlags, encodeOption } from '../../src/nbd/protocol/handshake.ts';
import { encodeInfoRequest } from '../../src/nbd/protocol/options.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { makeLoop } from '../helpers/loop.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { waitFor } from '../helpers/nbd-process.ts';

/** An image with data at both ends, a hole in the middle, and an odd size. */
function writeSample(path: string, size = 24 * MiB + 1536): void {
  writeFileSync(path, randomBytes(3 * MiB + 777));
  truncateSync(path, size);
  const tail = randomBytes(2 * MiB);
  writeFileSync(path, tail, { flag: 'r+' });
  truncateSync(path, size);
}

async function qemuIo(uri: string, ...commands: string[]): Promise<string> {
  const args = commands.flatMap((command) => ['-c', command]);
  return (await exec('qemu-io', ['-f', 'raw', ...args, uri])).stdout;
}

test('nbdcopy copies in and out, and its copy is a sparse file of that size', async (t) => {
  for (const tcp of [false, true]) {
    const server = await startDattosrv(t, ['--create'], { tcp });
    const source = join(server.directory, '.source');
    writeSample(source);
    const size = statSync(source).size;
    const uri = server.uriOf(`disk.img@${size}`);
    await exec('nbdcopy', [source, uri]);
    const image = join(server.directory, 'disk.img');
    await exec('cmp', [source, image]);
    assert.ok(statSync(image).blocks * 512 < 6 * MiB, 'holes stay holes');
    const back = join(server.directory, '.back');
    await exec('nbdcopy', [server.uriOf('disk.img'), back]);
    await exec('cmp', [source, back]);
    assert.deepEqual(
      readdirSync(server.directory).filter((name) => !['.source', '.back'].includes(name)),
      ['disk.img'],
    );
    assert.equal(await server.stop(), 0);
    assert.equal(server.stderr(), '');
  }
});

test('nbdinfo lists, asks and maps', async (t) => {
  const server = await startDattosrv(t, ['--create']);
  await exec('nbdinfo', [server.uriOf('one@1M')]);
  await exec('nbdinfo', [server.uriOf('two@2M')]);
  const { stdout } = await exec('nbdinfo', ['--list', '--json', server.uriOf('')]);
  const list = JSON.parse(stdout) as { exports: { 'export-name': string; 'export-size': number }[] };
  assert.deepEqual(
    list.exports.map((item) => [item['export-name'], item['export-size']]),
    [
      ['one', MiB],
      ['two', 2 * MiB],
    ],
  );
  const tcp = await startDattosrv(t, [], { tcp: true, directory: server.directory });
  const listed = await exec('nbd-client', ['-l', '127.0.0.1', String(tcp.port)]);
  assert.match(listed.stdout + listed.stderr, /^one$[^]*^two$/m);
  for (const ability of ['write', 'flush', 'fua', 'trim', 'zero', 'fast-zero', 'df', 'multi-conn', 'cache'])
    await exec('nbdinfo', ['--can', ability, server.uriOf('one')]);
  await exec('nbdinfo', ['--is', 'rotational', server.uriOf('one')], { allow: [2] });
  await qemuIo(server.uriOf('two'), 'write -P 5 1M 64k');
  const map = JSON.parse(
    (await exec('nbdinfo', ['--map', '--json', server.uriOf('two')])).stdout,
  ) as object[];
  assert.deepEqual(map, [
    { offset: 0, length: MiB, type: 3, description: 'hole,zero' },
    { offset: MiB, length: 64 * KiB, type: 0, description: 'data' },
    { offset: MiB + 64 * KiB, length: MiB - 64 * KiB, type: 3, description: 'hole,zero' },
  ]);
});

test('qemu-img converts, compares and maps', async (t) => {
  const server = await startDattosrv(t, ['--create']);
  const source = join(server.directory, '.source');
  writeSample(source, 24 * MiB);
  const uri = server.uriOf('disk@24M');
  await exec('qemu-img', ['convert', '-n', '-f', 'raw', '-O', 'raw', source, uri]);
  await exec('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, uri]);
  await exec('cmp', [source, join(server.directory, 'disk')]);
  const back = join(server.directory, '.back.qcow2');
  await exec('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', uri, back]);
  await exec('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', source, back]);
  const map = JSON.parse((await exec('qemu-img', ['map', '--output=json', '-f', 'raw', uri])).stdout) as {
    start: number;
    length: number;
    zero: boolean;
  }[];
  assert.equal(map.at(-1)?.zero, true);
  assert.ok((map.at(-1)?.length ?? 0) > 20 * MiB - 64 * KiB);
  await exec('qemu-img', ['bench', '-f', 'raw', '-w', '-c', '2000', '-d', '64', '-s', '4096', uri]);
});

test('qemu-io writes, zeroes and discards; holes become holes of the file', async (t) => {
  const server = await startDattosrv(t, ['--create']);
  const uri = server.uriOf('disk@8M');
  const image = join(server.directory, 'disk');
  /** Rounded to 64 KiB, so that the filesystem's own map of the file does not count. */
  const allocated = (): number => Math.floor((statSync(image).blocks * 512) / (64 * KiB)) * 64 * KiB;
  await qemuIo(uri, 'write -P 7 0 8M', 'flush');
  assert.equal(allocated(), 8 * MiB);
  await qemuIo(uri, 'write -z 1M 1M', 'read -P 0 1M 1M', 'read -P 7 2M 1M');
  assert.equal(allocated(), 8 * MiB, 'without leave to unmap the room is kept');
  await qemuIo(uri, 'write -z -u 1M 2M', 'read -P 0 1M 2M');
  assert.equal(allocated(), 6 * MiB);
  await exec('qemu-io', ['-f', 'raw', '-d', 'unmap', '-c', 'discard 4M 2M', uri]);
  assert.equal(allocated(), 4 * MiB);
  // The range is in bytes, not blocks: the neighbouring bytes stay.
  await qemuIo(uri, 'write -z -u 512 1024', 'read -P 7 0 512', 'read -P 0 512 1024', 'read -P 7 1536 512');
  const bytes = readFileSync(image);
  assert.ok(bytes.subarray(512, 1536).every((byte) => byte === 0));
  assert.ok(bytes.subarray(1536, MiB).every((byte) => byte === 7));
});

test("nbdkit's nbd plugin serves our exports", async (t) => {
  const server = await startDattosrv(t, ['--create']);
  await qemuIo(server.uriOf('disk@16M'), 'write -P 3 5M 1M');
  const proxy = await startNbdkit(['nbd', `uri=${server.uriOf('disk')}`]);
  try {
    await qemuIo(proxy.uri, 'read -P 3 5M 1M', 'write -P 4 6M 1M', 'write -z -u 5M 512k', 'flush');
    const map = (await exec('nbdinfo', ['--map', '--totals', proxy.uri])).stdout;
    assert.match(map, /^\s*1572864 +\S+ +0 data$/m);
  } finally {
    await proxy.stop();
  }
  await qemuIo(server.uriOf('disk'), 'read -P 0 5M 512k', 'read -P 3 5632k 512k', 'read -P 4 6M 1M');
});

test('flush and FUA reach the disk, and nothing else does', async (t) => {
  const server = await startDattosrv(t, ['--create'], { trace: 'fdatasync,fsync' });
  const uri = server.uriOf('disk@1M');
  const syncs = (): number =>
    (readFileSync(server.traceFile, 'utf8').match(/fdatasync\(\d+\) += 0|fdatasync resumed.*= 0/g) ?? [])
      .length;
  const info = await exec('nbdinfo', ['--size', uri]);
  assert.equal(info.stdout.trim(), String(MiB));
  assert.match(readFileSync(server.traceFile, 'utf8'), /fsync\(/, 'a new image is made durable');
  const source = join(server.directory, '.source');
  writeFileSync(source, randomBytes(MiB));
  const syncsOf = async (program: string, ...args: string[]): Promise<number> => {
    const before = syncs();
    await exec(program, args);
    return syncs() - before;
  };
  assert.equal(await syncsOf('nbdcopy', source, uri), 0, 'plain writes are not synced');
  // nbdcopy flushes each of its connections.
  assert.ok((await syncsOf('nbdcopy', '--flush', source, uri)) >= 1);
  const io = (...commands: string[]): Promise<number> =>
    syncsOf('qemu-io', '-f', 'raw', ...commands.flatMap((command) => ['-c', command]), uri);
  // qemu-io also flushes as it closes, as often after one write as after three.
  const one = await io('write -f -P 1 0 64k');
  const three = await io('write -f -P 1 0 64k', 'write -f -P 2 0 4k', 'write -z -f 0 4k');
  assert.equal(three - one, 2);
  const plain = await io('write -P 1 0 64k');
  assert.ok((await io('write -P 1 0 64k', 'flush', 'write -P 1 0 64k')) > plain);
  assert.equal(await server.stop(), 0);
});

test('a full disk is reported, and new space is used again', async (t) => {
  const disk = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4', mount: true });
  const server = await startDattosrv(t, ['--create'], { directory: disk.mountPoint! });
  const uri = server.uriOf('disk@64M');
  const { stdout, stderr } = await exec('qemu-io', ['-f', 'raw', '-c', 'write -P 1 0 32M', uri], {
    allow: [1],
  });
  assert.match(stdout + stderr, /No space left on device/);
  await qemuIo(uri, 'write -z -u 0 64M', 'write -P 2 0 4M', 'flush', 'read -P 2 0 4M');
  assert.match(server.stderr(), /NBD_ENOSPC/);
  assert.equal(await server.stop(), 0);
});

test('read-only: the server, or a file without write bits', async (t) => {
  const server = await startDattosrv(t, ['--create']);
  await qemuIo(server.uriOf('disk@1M'), 'write -P 9 0 1M');
  await exec('chmod', ['a-w', join(server.directory, 'disk')]);
  const second = await startDattosrv(t, ['--read-only'], { directory: server.directory });
  for (const uri of [server.uriOf('disk'), second.uriOf('disk')]) {
    await exec('nbdinfo', ['--is', 'read-only', uri]);
    const result = await exec('qemu-io', ['-f', 'raw', '-c', 'write 0 512', uri], { allow: [1] });
    assert.equal(result.code, 1);
    await exec('qemu-io', ['-r', '-f', 'raw', '-c', 'read -P 9 0 1M', uri]);
  }
  const { stderr } = await exec('qemu-img', ['info', second.uriOf('new@1M')], { allow: [1] });
  assert.match(stderr, /image "new" does not exist/);
  assert.ok(!existsSync(join(server.directory, 'new')));
});

test("two clients write one image at once, and each reads the other's writes", async (t) => {
  const server = await startDattosrv(t, ['--create', '--threads', '2']);
  const uri = server.uriOf('disk@32M');
  const bench = (offset: string, pattern: string): Promise<unknown> =>
    exec('qemu-img', [
      ...['bench', '-f', 'raw', '-w', '-c', '2000', '-d', '32', '-s', '4096', '-S', '8192'],
      ...['-o', offset, `--pattern=${pattern}`, '--flush-interval=500', uri],
    ]);
  await Promise.all([bench('0', '17'), bench('4096', '34')]);
  const bytes = readFileSync(join(server.directory, 'disk'));
  for (let at = 0; at < 2000 * 8192; at += 8192) {
    assert.ok(
      bytes.subarray(at, at + 4096).every((byte) => byte === 17),
      `at ${at}`,
    );
    assert.ok(
      bytes.subarray(at + 4096, at + 8192).every((byte) => byte === 34),
      `at ${at + 4096}`,
    );
  }
  assert.match((await exec('nbdinfo', ['--size', uri])).stdout, /33554432/);
});

test('a server killed during a write leaves a usable image', async (t) => {
  const server = await startDattosrv(t, ['--create']);
  const source = join(server.directory, '.source');
  writeFileSync(source, randomBytes(64 * MiB));
  const image = join(server.directory, 'disk');
  const copying = exec('nbdcopy', [source, server.uriOf('disk@64M')], { allow: [1, -1] });
  await waitFor(() => existsSync(image) && statSync(image).blocks > 0, 'first blocks of the image');
  await server.kill();
  await copying;
  assert.equal(statSync(image).size, 64 * MiB);
  assert.deepEqual(
    readdirSync(server.directory).filter((name) => name.startsWith('.unfinished')),
    [],
  );
  const second = await startDattosrv(t, ['--create'], { directory: server.directory });
  await exec('nbdcopy', [source, second.uriOf('disk@64M')]);
  await exec('cmp', [source, image]);
});

test('SIGTERM finishes running requests: all confirmed data is in the file', async (t) => {
  const server = await startDattosrv(t, ['--create'], { trace: 'fdatasync' });
  const source = join(server.directory, '.source');
  writeFileSync(source, randomBytes(64 * MiB));
  const image = join(server.directory, 'disk');
  const copying = exec('nbdcopy', [source, server.uriOf('disk@64M')], { allow: [1, -1] });
  await waitFor(() => existsSync(image) && statSync(image).blocks > 0, 'first blocks of the image');
  assert.equal(await server.stop(), 0);
  await copying;
  assert.match(readFileSync(server.traceFile, 'utf8'), /fdatasync/);
  assert.ok(!existsSync(server.socket), 'the socket is gone');
});

test('no export name leads out of the directory', async (t) => {
  const server = await startDattosrv(t, ['--create']);
  symlinkSync('/etc/passwd', join(server.directory, 'link'));
  writeFileSync(join(server.directory, '.hidden'), 'x');
  for (const name of [
    ...['../etc/passwd', '/etc/passwd', '..', '.', '.hidden', 'link', 'link@1M', 'a/b@1M', '..%2Fx@1M'],
    ...['%2Fetc%2Fpasswd', `${'x'.repeat(300)}@1M`, 'x@', 'x@-1', 'x@1M@1M', '.unfinished-x@1M', '%0a@1M'],
  ]) {
    const { stderr, code } = await exec('nbdinfo', [server.uriOf(name)], { allow: [1] });
    assert.equal(code, 1, name);
    assert.match(stderr, /nbd_opt_go|nbd_connect_uri|nbdinfo/, name);
  }
  assert.deepEqual(readdirSync(server.directory).sort(), ['.hidden', 'link']);
  const { stderr } = await exec('nbdinfo', [server.uriOf('a@1M')]);
  assert.equal(stderr, '');
  const differs = await exec('qemu-img', ['info', server.uriOf('a@2M')], { allow: [1] });
  assert.match(differs.stderr, /1048576 bytes, but 2097152/);
});

test('clients that send garbage, or are too many, do not disturb others', async (t) => {
  const server = await startDattosrv(t, ['--create', '--max-connections', '4']);
  await exec('nbdinfo', [server.uriOf('disk@1M')]);
  for (const nonsense of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), randomBytes(4096), Buffer.alloc(100_000)]) {
    const socket = connect(server.socket);
    socket.on('error', () => undefined);
    socket.resume();
    const closed = new Promise((resolve) => socket.on('close', resolve));
    socket.write(nonsense);
    await closed;
  }
  const idle = Array.from({ length: 4 }, () => connect(server.socket));
  const go = encodeOption(NBD_OPT.GO, encodeInfoRequest({ name: 'disk', requests: [] }));
  // Only connections that have chosen an export count. The reply to that is longer than the greeting.
  await Promise.all(
    idle.map(async (socket) => {
      socket.write(Buffer.concat([encodeClientFlags(3), go]));
      for (let bytes = 0; bytes <= 18;) bytes += ((await once(socket, 'data')) as [Buffer])[0].length;
    }),
  );
  const refused = await exec('nbdinfo', ['--size', server.uriOf('disk')], { allow: [1] });
  assert.equal(refused.code, 1);
  assert.match(server.stderr(), /--max-connections/);
  for (const socket of idle) socket.destroy();
  await waitFor(
    async () => (await exec('nbdinfo', ['--size', server.uriOf('disk')], { allow: [1] })).code === 0,
    'room for a new client',
  );
});
