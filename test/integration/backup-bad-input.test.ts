/**
 * Proves that bad input of every kind gives one line with the next step and the right exit code, as text and
 * as JSON. It also changes nothing: afterwards nothing is made, frozen, mounted, held open or running.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { chmod, mkdir, open, readFile, rm, symlink } from 'node:fs/promises';
import { createServer } from 'node:net';
import { once } from 'node:events';
import { join } from 'node:path';
import { after, afterEach, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { MiB } from '../../src/base/bytes.ts';
import type { ErrorDocument } from '../../src/base/errors.ts';
import {
  assertNothingLeft,
  backUp,
  daemonFor,
  refused,
  scratchFor,
  scriptIn,
  startJob,
  untilEnded,
  untilJob,
} from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { dattocli, runProgram } from '../helpers/daemon.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { fillDevice, fillWithFiles } from '../helpers/files.ts';
import { assertSameRanges } from '../helpers/image-proof.ts';
import { attachLoop, detachLoop, makeLoop, umount } from '../helpers/loop.ts';
import { freePort } from '../helpers/nbd-process.ts';
import { type NbdkitOptions, startNbdkit } from '../helpers/nbdkit.ts';
import { makeTlsFiles } from '../helpers/tls-files.ts';

const whole = { after };
const scratch = scratchFor(whole);
const size = 96 * MiB;
const disk = await makeLoop(whole, {
  size,
  filesystem: 'ext4',
  mkfsArgs: ['-L', 'bad-input-data'],
  mount: true,
});
const mountPoint = disk.mountPoint!;
await fillWithFiles(mountPoint, 24 * MiB);
const daemon = await daemonFor(whole);

/** After every test the machine is as before it. */
afterEach(() => assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [mountPoint] }));

async function nbdkit(
  t: EndingTest,
  parameters: readonly string[],
  options: NbdkitOptions = {},
): Promise<string> {
  const server = await startNbdkit(parameters, options);
  atEnd(t, () => server.stop());
  return server.uri;
}

const start = (device: string, target: string, ...more: string[]): string[] => [
  ...['startbackup', '--full', '--device', device, '--target', target],
  ...more,
];

/** Asserts that the job starts, and fails with this error. */
async function fails(args: readonly string[], code: ErrorDocument['code']): Promise<ErrorDocument> {
  const result = await backUp(daemon, args);
  assert.deepEqual([result.status.state, result.code], ['FAILED', 1], result.stderr);
  const error = JSON.parse(result.stderr) as ErrorDocument;
  assert.deepEqual(error, result.status.error);
  assert.equal(error.code, code, result.stderr);
  assert.ok((error.hint ?? '').length > 10, result.stderr);
  return error;
}

test('absent devices: unknown UUID, label, path, and a directory that is not a mount point', async () => {
  const target = join(scratch, 'never');
  const unknown = '01234567-89ab-cdef-0123-456789abcdef';
  const error = await refused(daemon, start(unknown, target), 'DEVICE_NOT_FOUND');
  assert.equal(error.message, `Unable to find block device for UUID ${unknown}`);
  const pair = ['startbackup', '-f', '--device-pair', unknown, '127.0.0.1', '10809'];
  await refused(daemon, pair, 'DEVICE_NOT_FOUND');
  for (const name of ['/dev/not-there', scratch, join(mountPoint, 'zeros'), 'no-such-label'])
    await refused(daemon, start(name, target), 'DEVICE_NOT_FOUND');
  assert.ok(!existsSync(target));
});

test('a label that two filesystems have', async (t) => {
  const twin = await makeLoop(t, { size: 8 * MiB, filesystem: 'ext4', mkfsArgs: ['-L', 'bad-input-data'] });
  const error = await refused(daemon, start('bad-input-data', join(scratch, 'never')), 'DEVICE_AMBIGUOUS');
  assert.ok(error.message.includes(disk.device) && error.message.includes(twin.device), error.message);
});

test('nothing to back up, or half a pair: wrong usage, exit code 2', async () => {
  const nothing = await refused(daemon, ['startbackup', '-f'], 'NO_DEVICES', 2);
  assert.equal(nothing.message, 'No devices given to backup');
  await refused(daemon, ['startbackup', '-f', '--device-pair', disk.device, '127.0.0.1'], 'BAD_USAGE', 2);
  // A device without a target goes into the default vault, which does not exist here.
  const alone = await refused(daemon, ['startbackup', '-f', '--device', disk.device], 'VAULT_NOT_FOUND');
  assert.match(alone.hint ?? '', /dattocli vault init/);
  const half = ['--device', disk.device, '--target', 'vault:default', '--device', disk.device];
  await refused(daemon, ['startbackup', '-f', ...half], 'BAD_USAGE', 2);
  await refused(daemon, start(disk.device, 'nbd://host:port:more/'), 'BAD_TARGET', 2);
  await refused(daemon, start(disk.device, 'nbd://127.0.0.1/x', '--max-freeze', 'soon'), 'BAD_USAGE', 2);
  const unmade = join(scratch, 'never-made.img');
  await refused(daemon, start(disk.device, unmade, '--impact', 'none'), 'BAD_USAGE', 2);
  assert.ok(!existsSync(unmade));
  await refused(daemon, ['stopbackup', '01234567-89ab-cdef-0123-456789abcdef'], 'JOB_NOT_FOUND');
});

test('invalid targets: too small, read-only, gone, unknown, with TLS, not NBD at all', async (t) => {
  const small = await refused(
    daemon,
    start(disk.device, await nbdkit(t, ['memory', '64M'])),
    'TARGET_TOO_SMALL',
  );
  assert.match(small.message, /Destination device is too small.*67108864.*100663296/);
  const smallFile = join(scratch, 'small.img');
  await exec('truncate', ['--size=1M', smallFile]);
  await refused(daemon, start(disk.device, smallFile), 'TARGET_TOO_SMALL');

  await refused(
    daemon,
    start(disk.device, await nbdkit(t, ['--readonly', 'memory', '128M'])),
    'TARGET_READ_ONLY',
  );
  const port = String(await freePort());
  const pair = ['startbackup', '-f', '--vector', disk.device, '127.0.0.1', port];
  const gone = await refused(daemon, pair, 'TARGET_UNREACHABLE');
  assert.ok(gone.message.includes(port));
  await refused(daemon, start(disk.device, 'nbd+unix:///?socket=/not/there'), 'TARGET_UNREACHABLE');
  await refused(daemon, start(disk.device, join(scratch, 'no-directory', 'image')), 'FILE_ERROR');

  const server = await startDattosrv(t);
  await refused(daemon, start(disk.device, server.uriOf('not-there')), 'NBD_EXPORT_UNKNOWN');
  const creating = await startDattosrv(t, ['--create']);
  await exec('truncate', ['--size=1M', join(creating.directory, 'other')]);
  await refused(daemon, start(disk.device, creating.uriOf(`other@${size}`)), 'NBD_REFUSED');

  const { pskFile } = makeTlsFiles(join(scratch, 'tls'));
  const secure = await nbdkit(t, [`--tls-psk=${pskFile}`, 'memory', '128M'], { tls: true });
  await refused(daemon, start(disk.device, secure.replace('nbds', 'nbd')), 'NBD_TLS');

  const web = createServer((socket) =>
    socket.on('error', () => undefined).end('HTTP/1.1 400 Bad Request\r\n\r\n'),
  );
  web.listen(0, '127.0.0.1');
  await once(web, 'listening');
  atEnd(t, () => void web.close());
  const address = web.address() as { port: number };
  await refused(daemon, start(disk.device, `nbd://127.0.0.1:${address.port}/`), 'NBD_PROTOCOL');
});

test('a device onto itself: directly, by a file on it, by a loop device on that, by our own server', async (t) => {
  const target = join(mountPoint, 'image.datto');
  await refused(daemon, start(disk.device, disk.device), 'SAME_DEVICE');
  await refused(daemon, start(disk.device, disk.image), 'SAME_DEVICE');
  const error = await refused(daemon, start(mountPoint, target), 'SAME_DEVICE');
  assert.match(error.message, /Refusing to synchronize a device with itself/);
  assert.ok(!existsSync(target));
  await symlink(mountPoint, join(scratch, 'link'));
  await refused(daemon, start(mountPoint, join(scratch, 'link', 'image.datto')), 'SAME_DEVICE');

  const inner = join(mountPoint, 'inner.img');
  await exec('truncate', [`--size=${size}`, inner]);
  const loop = await attachLoop(inner);
  atEnd(t, async () => {
    await detachLoop(loop);
    await rm(inner);
  });
  await refused(daemon, start(disk.device, loop), 'SAME_DEVICE');

  const images = join(mountPoint, 'images');
  await mkdir(images);
  atEnd(t, () => rm(images, { recursive: true }));
  const server = await startDattosrv(t, ['--create'], { directory: images, tcp: true });
  await refused(daemon, start(disk.device, server.uriOf(`own@${size}`)), 'SAME_DEVICE');
  await server.stop();
});

test('a block device in use as a target', async (t) => {
  const used = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  const error = await refused(daemon, start(disk.device, used.device), 'DEVICE_BUSY');
  assert.ok(error.message.includes(used.mountPoint!), error.message);
});

test('a filesystem that another process holds frozen: refused or failed, and left frozen', async (t) => {
  const other = await makeLoop(t, { size: 32 * MiB, filesystem: 'ext4', mount: true });
  await exec('fsfreeze', ['--freeze', other.mountPoint!]);
  try {
    await fails(['--device', other.device, '--target', join(scratch, 'frozen.img')], 'ALREADY_FROZEN');
    // The kernel refuses to freeze it once more while it is frozen.
    const again = await exec('fsfreeze', ['--freeze', other.mountPoint!], { allow: [1] });
    assert.equal(again.code, 1, 'it is not frozen any more');
  } finally {
    await exec('fsfreeze', ['--unfreeze', other.mountPoint!]);
  }
});

test('a freeze that would take too long is refused before anything is made', async () => {
  const target = join(scratch, 'refused.img');
  const error = await refused(daemon, start(disk.device, target, '--max-freeze', '1ms'), 'FREEZE_TOO_LONG');
  assert.match(error.message, /allowed are 1 ms/);
  assert.match(error.hint ?? '', /--max-freeze \d+s/);
  assert.ok(!existsSync(target), 'the image was made nevertheless');
});

test('hooks that do not exist or fail', async () => {
  const target = join(scratch, 'hooked.img');
  const failing = await scriptIn(scratch, 'failing', ['echo "database is busy" >&2', 'exit 3']);
  const args = ['--device', disk.device, '--target', target];
  const error = await fails([...args, '--pre-freeze-hook', failing], 'HOOK_FAILED');
  assert.match(error.message, /exited with 3: database is busy/);
  await fails([...args, '--frozen-hook', failing], 'HOOK_FAILED');
  await fails([...args, '--pre-freeze-hook', '/not/there'], 'HOOK_FAILED');
  await chmod(failing, 0o777);
  for (const option of ['--pre-freeze-hook', '--frozen-hook', '--post-thaw-hook']) {
    const unsafe = await refused(daemon, [...start(mountPoint, target), option, failing], 'UNSAFE_FILE');
    assert.equal(unsafe.hint, `Run: chmod go-w '${failing}'`);
  }
});

test('a full disk at the receiver: an image file, and dattosrv', async (t) => {
  const small = await makeLoop(t, { size: 24 * MiB, filesystem: 'ext4', mount: true });
  await fails(['--device', disk.device, '--target', join(small.mountPoint!, 'full.img')], 'TARGET_FULL');
  await rm(join(small.mountPoint!, 'full.img'));
  const server = await startDattosrv(t, ['--create'], { directory: small.mountPoint! });
  await fails(['--device', disk.device, '--target', server.uriOf(`full@${size}`)], 'TARGET_FULL');
  await server.stop();
});

test('a device that another job is backing up', async () => {
  const job = await startJob(daemon, [
    ...['--device', disk.device, '--target', join(scratch, 'first.img'), '--rate', '2M'],
  ]);
  const busy = await refused(daemon, start(mountPoint, join(scratch, 'second.img')), 'DEVICE_BUSY');
  assert.match(busy.message, /Device is already being backed up/);
  assert.ok(busy.hint?.includes(job));
  assert.equal((await dattocli(['stopbackup', job], daemon)).code, 0);
});

test('bad sectors: the job fails, or writes zeros and reports the exact sectors', async (t) => {
  const bad = await makeLoop(t, { size: 24 * MiB });
  const file = await open(bad.image, 'r+');
  await file.write(Buffer.alloc(24 * MiB, 'data '));
  await file.sync();
  // The loop device reports EIO for data that it cannot read from its file.
  const lost = 40 * 1024 + 512;
  await file.truncate(24 * MiB - lost);
  await file.close();
  const args = ['--device', bad.device, '--target', join(scratch, 'bad.img')];
  const error = await fails(args, 'DEVICE_READ_ERROR');
  assert.match(error.hint ?? '', /--on-read-error=zero/);

  const { status, code } = await backUp(daemon, [...args, '--on-read-error', 'zero']);
  assert.deepEqual([status.state, status.error, code], ['SUCCEEDED', null, 5]);
  assert.deepEqual(status.devices[0]?.read_errors, [{ offset: 24 * MiB - lost, length: lost }]);
  assert.deepEqual(status.warnings.map((warning) => warning.code).sort(), ['EVERYTHING_USED', 'READ_ERRORS']);
  const good = 24 * MiB - lost;
  await assertSameRanges(bad.image, join(scratch, 'bad.img'), [{ offset: 0, length: good }]);
  const image = await readFile(join(scratch, 'bad.img'));
  assert.ok(image.subarray(good).every((byte) => byte === 0) && image.length === 24 * MiB);
});

test('a device that changes its size during the copy', async (t) => {
  const shrinking = await makeLoop(t, { size: 64 * MiB });
  await exec('dd', [
    'if=/dev/urandom',
    `of=${shrinking.image}`,
    'bs=1M',
    'count=64',
    'conv=notrunc',
    'status=none',
  ]);
  const job = await startJob(daemon, [
    ...['--device', shrinking.device, '--target', join(scratch, 'shrinking.img'), '--rate', '16M'],
  ]);
  await untilJob(daemon, job, 'bytes move', (status) => (status.devices[0]?.bytes_sent ?? 0) > 4 * MiB);
  await exec('truncate', ['--size=32M', shrinking.image]);
  await exec('losetup', ['--set-capacity', shrinking.device]);
  const status = await untilEnded(daemon, job);
  assert.deepEqual(
    [status.state, status.error?.code],
    ['FAILED', 'DEVICE_GONE'],
    JSON.stringify(status.error),
  );
  await assertNothingLeft(daemon, { devices: [shrinking.device] });
});

test('a second daemon, no daemon, and no root', async () => {
  const second = await runProgram('src/bin/dattod.ts', ['--foreground', ...daemon.arguments]);
  assert.equal(second.code, 1);
  assert.match(second.stderr, /^dattod: [^\n]*already running[^\n]*\n$/);

  await refused({ socket: join(scratch, 'no.sock') }, ['jobs'], 'DAEMON_UNREACHABLE', 3);

  const asNobody = ['--reuid=65534', '--regid=65534', '--clear-groups', process.execPath];
  const program = (name: string): string =>
    fileURLToPath(new URL(`../../src/bin/${name}.ts`, import.meta.url));
  const dattod = await exec('setpriv', [...asNobody, program('dattod'), '--foreground'], { allow: [1] });
  assert.equal(dattod.code, 1);
  assert.match(dattod.stderr, /^dattod: [^\n]*needs root[^\n]*sudo[^\n]*\n$/);
  await exec('chmod', ['755', daemon.directory]);
  const command = await exec(
    'setpriv',
    [...asNobody, program('dattocli'), 'jobs', '--json', '--socket', daemon.socket],
    { allow: [1] },
  );
  assert.equal(command.code, 1);
  assert.equal((JSON.parse(command.stderr) as ErrorDocument).code, 'NO_PERMISSION');
});

test('an idle device cannot be mounted or opened for exclusive writing during its backup', async (t) => {
  const idle = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4' });
  await fillDevice(idle, 16 * MiB);
  const job = await startJob(daemon, [
    ...['--device', idle.device, '--target', join(scratch, 'idle.img'), '--rate', '4M'],
  ]);
  const directory = join(idle.directory, 'mnt');
  await mkdir(directory);
  const { code, stderr } = await exec('mount', [idle.device, directory], { allow: [32] });
  assert.equal(code, 32, 'it was mounted');
  assert.match(stderr, /busy/);
  assert.equal((await dattocli(['stopbackup', job], daemon)).code, 0);
  await exec('mount', [idle.device, directory]);
  await umount(directory);
});
