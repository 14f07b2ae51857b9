/**
 * Proves that a full backup into every foreign server (nbdkit, qemu-nbd) and our own gives the device's used
 * blocks, by qemu-img, cmp, e2fsck and xfs_repair. The cases include TLS, odd sizes, odd sectors, and servers
 * that are slow, strict about block sizes, or failing.
 */
import assert from 'node:assert/strict';
import { open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { assertNothingLeft, backUp, backUpWell, daemonFor, scratchFor } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { assertSameUsed, assertWhole, type FilesystemName } from '../helpers/image-proof.ts';
import { fillDevice } from '../helpers/files.ts';
import { type LoopDisk, makeLoop } from '../helpers/loop.ts';
import type { NbdServerProcess } from '../helpers/nbd-process.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { startQemuNbd } from '../helpers/qemu-nbd.ts';
import { makeTlsFiles } from '../helpers/tls-files.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await daemonFor(whole);
const tls = makeTlsFiles(join(scratch, 'tls'));

interface SourceOptions {
  readonly size?: number;
  readonly sectorSize?: number;
  readonly mkfsArgs?: readonly string[];
}

/** Makes an unmounted filesystem with files and holes, and with garbage in its free space. */
async function makeSource(
  t: EndingTest,
  type: FilesystemName,
  options: SourceOptions = {},
): Promise<LoopDisk> {
  const { size = 256 * MiB, sectorSize = 512, mkfsArgs = [] } = options;
  const disk = await makeLoop(t, { size, sectorSize });
  await exec('dd', ['if=/dev/urandom', `of=${disk.device}`, 'bs=1M', 'count=24', 'seek=100', 'status=none'], {
    allow: [1],
  });
  await exec(`mkfs.${type}`, ['-q', type === 'xfs' ? '-f' : '-F', ...mkfsArgs, disk.device]);
  await fillDevice(disk, 32 * MiB);
  return disk;
}

async function sizeOf(disk: LoopDisk): Promise<number> {
  return Number((await exec('blockdev', ['--getsize64', disk.device])).stdout);
}

/** The source is made once, because only the servers differ. */
const ext4 = await makeSource(whole, 'ext4');
const size = 256 * MiB;

function stopAtEnd<Server extends Pick<NbdServerProcess, 'stop'>>(t: EndingTest, server: Server): Server {
  atEnd(t, () => server.stop());
  return server;
}

async function imageFile(name: string, bytes: number): Promise<string> {
  const path = join(scratch, name);
  const file = await open(path, 'w');
  await file.truncate(bytes);
  await file.close();
  return path;
}

/** Proves an image that can be read as a file. */
async function prove(type: FilesystemName, disk: LoopDisk, image: string): Promise<void> {
  assert.ok((await assertSameUsed(type, disk.device, image, await sizeOf(disk))) > 0);
  await assertWhole(type, image);
}

/** Reads an export with a foreign client. */
async function fetchExport(uri: string, name: string): Promise<string> {
  const image = await imageFile(name, size);
  await exec('nbdcopy', ['--', uri, image]);
  return image;
}

test('nbdkit memory, read back by nbdcopy', async (t) => {
  const server = stopAtEnd(t, await startNbdkit(['memory', String(size)]));
  const status = await backUpWell(daemon, ['--device', ext4.device, '--target', server.uri]);
  await prove('ext4', ext4, await fetchExport(server.uri, 'memory.img'));
  const [device] = status.devices;
  assert.ok(device !== undefined && device.used_bytes > 20 * MiB && device.used_bytes < size);
  assert.equal(device.freeze_ms, 0);
  assert.equal(device.bytes_unsynced, 0);
  assert.ok(
    device.bytes_sent >= 20 * MiB && device.bytes_sent + device.bytes_zero === device.bytes_transferred,
  );
  assert.ok(device.bytes_verified > 0);
});

test('nbdkit file on TCP by --device-pair, one connection and four', async (t) => {
  for (const connections of ['1', '4']) {
    const image = await imageFile('file.img', size);
    const server = stopAtEnd(t, await startNbdkit(['file', image], { tcp: true }));
    const pair = ['--device-pair', ext4.device, '127.0.0.1', String(server.port)];
    await backUpWell(daemon, [...pair, '--connections', connections, '--verify', 'full']);
    await prove('ext4', ext4, image);
  }
});

test('nbdkit filters that delay, limit the rate, and want blocks of a certain size', async (t) => {
  const filters = [
    ['--filter=delay', 'wdelay=3ms', 'delay-zero=3ms'],
    ['--filter=rate', 'rate=2G'],
    [
      '--filter=blocksize-policy',
      'blocksize-minimum=4096',
      'blocksize-preferred=64K',
      'blocksize-maximum=64K',
      'blocksize-error-policy=error',
    ],
    ['--filter=noextents', '--filter=nozero', '--filter=noparallel'],
  ];
  for (const [filter = '', ...parameters] of filters) {
    const image = await imageFile('filtered.img', size);
    const more = parameters.filter((each) => each.startsWith('--'));
    const settings = parameters.filter((each) => !each.startsWith('--'));
    const server = stopAtEnd(t, await startNbdkit([filter, ...more, 'file', image, ...settings]));
    await backUpWell(daemon, ['--device', ext4.device, '--target', server.uri]);
    await prove('ext4', ext4, image);
    await server.stop();
  }
});

test('an error of the server ends the job by its name, and the next full is right', async (t) => {
  for (const [errno, code] of [
    ['EIO', 'TARGET_WRITE_ERROR'],
    ['ENOSPC', 'TARGET_FULL'],
    ['EPERM', 'TARGET_READ_ONLY'],
  ] as const) {
    const image = await imageFile('failing.img', size);
    const trigger = join(scratch, 'trigger');
    await writeFile(trigger, '');
    const settings = [`error-pwrite=${errno}`, 'error-pwrite-rate=100%', `error-pwrite-file=${trigger}`];
    const server = stopAtEnd(t, await startNbdkit(['--filter=error', 'file', image, ...settings]));
    const target = ['--device', ext4.device, '--target', server.uri];
    const failed = await backUp(daemon, target);
    assert.deepEqual([failed.status.state, failed.status.error?.code, failed.code], ['FAILED', code, 1]);
    assert.match(failed.status.error?.message ?? '', new RegExp(`${errno}.*NBD_CMD_WRITE`));
    assert.match(failed.stderr, /^\{[^\n]+\}\n$/);
    await assertNothingLeft(daemon, { devices: [ext4.device] });

    await rm(trigger);
    await backUpWell(daemon, target);
    await prove('ext4', ext4, image);
    await server.stop();
  }
});

test('qemu-nbd, raw and qcow2', async (t) => {
  for (const format of ['raw', 'qcow2']) {
    const image = join(scratch, `qemu.${format}`);
    await exec('qemu-img', ['create', '-q', '-f', format, image, String(size)]);
    const server = stopAtEnd(t, await startQemuNbd([`--format=${format}`, '--discard=unmap', image]));
    await backUpWell(daemon, ['--device', ext4.device, '--target', server.uri]);
    await server.stop();
    await exec('qemu-img', ['check', '-q', '-f', format, image], { allow: format === 'raw' ? [63] : [] });
    const raw = join(scratch, 'qemu.converted');
    await exec('qemu-img', ['convert', '-f', format, '-O', 'raw', image, raw]);
    await prove('ext4', ext4, raw);
  }
});

test('dattosrv makes the image on demand, with holes for zeros', async (t) => {
  const server = await startDattosrv(t, ['--create'], { tcp: true });
  await backUpWell(daemon, ['--device', ext4.device, '--target', server.uriOf(`ext4.img@${size}`)]);
  const image = join(server.directory, 'ext4.img');
  await prove('ext4', ext4, image);
  const blocks = Number((await exec('stat', ['-c', '%b', image])).stdout) * 512;
  assert.ok(blocks < 64 * MiB, `${blocks} bytes allocated`);
});

test('TLS with certificates and with pre-shared keys, if the server supports them', async (t) => {
  const { directory, pskFile } = tls;
  const x509 = `tls-certificates=${directory}`;
  const psk = `tls-psk-file=${pskFile}`;
  const withUser = (uri: string): string => uri.replace('://', '://alice@');
  const image = await imageFile('tls.img', size);
  const run = async (uri: string, file = image): Promise<void> => {
    await backUpWell(daemon, ['--device', ext4.device, '--target', uri]);
    await prove('ext4', ext4, file);
    await exec('truncate', ['--size=0', file]);
    await exec('truncate', [`--size=${size}`, file]);
  };

  const kit = ['file', image];
  const kit509 = stopAtEnd(
    t,
    await startNbdkit([`--tls-certificates=${directory}`, '--tls-verify-peer', ...kit], {
      tcp: true,
      tls: true,
    }),
  );
  await run(`${kit509.uri}/?${x509}`);
  await kit509.stop();
  const kitPsk = stopAtEnd(t, await startNbdkit([`--tls-psk=${pskFile}`, ...kit], { tls: true }));
  await run(withUser(`${kitPsk.uri}&${psk}`));
  await kitPsk.stop();

  const qemu = stopAtEnd(
    t,
    await startQemuNbd(['--format=raw', image], { tcp: true, certificates: directory }),
  );
  await run(`${qemu.uri}/?${x509}`);
  await qemu.stop();

  const own509 = await startDattosrv(t, ['--create', '--tls-certificates', directory, '--tls-verify-peer'], {
    tcp: true,
    uriParameters: x509,
  });
  await run(own509.uriOf(`x509.img@${size}`), join(own509.directory, 'x509.img'));
  const ownPsk = await startDattosrv(t, ['--create', '--tls-psk', pskFile], {
    user: 'alice@',
    uriParameters: psk,
  });
  await run(ownPsk.uriOf(`psk.img@${size}`), join(ownPsk.directory, 'psk.img'));
});

test('sizes that are not a multiple of anything, 4096-byte sectors, XFS; two devices in one job', async (t) => {
  const odd = await makeSource(t, 'ext4', { size: 136 * MiB + 512, mkfsArgs: ['-b', '1024'] });
  const tail = await makeSource(t, 'ext2', { size: 140 * MiB + 36 * 1024 });
  const large = await makeSource(t, 'ext4', { size: 160 * MiB + 4096, sectorSize: 4096 });
  const xfs = await makeSource(t, 'xfs', { size: 320 * MiB });
  const server = await startDattosrv(t, ['--create']);
  const cases = [
    ['ext4', odd],
    ['ext2', tail],
    ['ext4', large],
    ['xfs', xfs],
  ] as const;
  const args: string[] = [];
  for (const [index, [, disk]] of cases.entries())
    args.push('--device', disk.device, '--target', server.uriOf(`disk${index}@${await sizeOf(disk)}`));
  const pairs = [args.slice(0, 8), args.slice(8)];
  for (const pair of pairs) {
    const status = await backUpWell(daemon, [...pair, '--verify', 'full']);
    assert.equal(status.devices.length, 2);
  }
  for (const [index, [type, disk]] of cases.entries())
    await prove(type, disk, join(server.directory, `disk${index}`));

  // The server has blocks of 4096 bytes, and the device ends within one.
  const small = await imageFile('small.img', 136 * MiB + 4096);
  const kit = stopAtEnd(
    t,
    await startNbdkit([
      '--filter=blocksize-policy',
      'file',
      small,
      'blocksize-minimum=4096',
      'blocksize-error-policy=error',
    ]),
  );
  await backUpWell(daemon, ['--device', odd.device, '--target', kit.uri]);
  await prove('ext4', odd, small);
});

test('a device without a filesystem is copied whole, and the image equals it', async (t) => {
  const disk = await makeLoop(t, { size: 40 * MiB + 512 });
  await exec('dd', ['if=/dev/urandom', `of=${disk.device}`, 'bs=64k', 'count=200', 'seek=37', 'status=none']);
  const image = join(scratch, 'whole.img');
  const { status, code } = await backUp(daemon, ['--device', disk.device, '--target', image]);
  assert.deepEqual([status.state, code], ['SUCCEEDED', 5], JSON.stringify(status));
  assert.deepEqual(
    status.warnings.map((warning) => warning.code),
    ['EVERYTHING_USED'],
  );
  await exec('cmp', [disk.device, image]);
  await exec('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'raw', disk.image, image]);
  await assertNothingLeft(daemon, { devices: [disk.device, ext4.device] });
});
