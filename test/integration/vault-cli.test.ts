/**
 * Runs the vault commands as a new user types them: init, two backups, points, diff, restore of the device
 * and of files, mount, export, verify, forget, prune, check. Debian's tools check the restored data.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync, statSync, truncateSync } from 'node:fs';
import { chmod, chown, link, mkdir, rm, utimes, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import * as Type from 'typebox';
import { MiB } from '../../src/base/bytes.ts';
import { diffDocument, forgetDocument, pointsDocument } from '../../src/api/vault/output/points.ts';
import { mountDocument, restoreDocument, verifyDocument } from '../../src/api/vault/output/recovery.ts';
import { checkDocument, pruneDocument, statsDocument } from '../../src/api/vault/output/upkeep.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { scratchFor } from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { dattocli, waitFor } from '../helpers/daemon.ts';
import { dattocliHere, documentLike, refusedHere } from '../helpers/dattocli-here.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';

const whole = { after };
const daemon = await trackedDaemonFor(whole);
const scratch = scratchFor(whole);
const size = 96 * MiB;
const source = await makeLoop(whole, { size, filesystem: 'ext4', mount: true });
const files = source.mountPoint!;

/** Options with which a command finds the vault, and the directory for mounts. */
const at = ['--state-dir', daemon.stateDirectory, '--config', daemon.config];
const run = ['--run-dir', daemon.runDirectory];
let recoveryCode = '';

const points = async () => (await documentLike(pointsDocument, ['points', ...at])).points;

test('vault init makes the default vault, its key and a recovery code', async () => {
  const { code, stdout, stderr } = await dattocli(['vault', 'init', ...at]);
  assert.deepEqual([code, stderr], [0, '']);
  assert.match(stdout, /^vault +vault:\S+\/vault$/m);
  const keyFile = /^key file +(\S+)$/m.exec(stdout)?.[1] ?? '';
  assert.equal(statSync(keyFile).mode & 0o777, 0o600);
  recoveryCode =
    /((?:[0-9A-Z]{4}-){7})\s+((?:[0-9A-Z]{4}-){6}[0-9A-Z]{4})/.exec(stdout)?.slice(1).join('') ?? '';
  assert.equal(recoveryCode.length, 14 * 5 - 1);
  const info = await dattocliHere(['vault', 'info', ...at]);
  assert.match(info.out, /^key .* recovery code, since /m);
  assert.match(info.out, /^points +0$/m);
});

test('a full and an incremental into the default vault, without naming a target', async () => {
  await fillWithFiles(files, 12 * MiB);
  await mkdir(join(files, 'kept'));
  await writeFile(join(files, 'kept/plain'), 'before\n');
  await writeFile(join(files, 'kept/odd name\n'), 'odd');
  await link(join(files, 'kept/plain'), join(files, 'kept/linked'));
  await chown(join(files, 'kept/plain'), 1234, 2345);
  await chmod(join(files, 'kept/plain'), 0o4751);
  await utimes(join(files, 'kept/plain'), 1e9, 1e9 + 0.5);
  await exec('setfattr', ['-n', 'user.note', '-v', 'kept', join(files, 'kept/plain')]);
  await writeFile(join(files, 'kept/sparse'), 'begin');
  truncateSync(join(files, 'kept/sparse'), 8 * MiB);
  await exec('sync', ['--file-system', files]);
  const full = await dattocli(['startbackup', '-f', '--device', source.device, '--wait'], daemon);
  assert.equal(full.code, 0, full.stderr);
  assert.match(full.stdout, / stored .* point\n.* vault:default +[0-9a-f]{32}$/m);

  await writeFile(join(files, 'kept/new'), Buffer.alloc(300_000, 'new'));
  await writeFile(join(files, 'kept/sparse'), 'changed', { flag: 'r+' });
  await rm(join(files, 'kept/odd name\n'));
  await exec('sync', ['--file-system', files]);
  const second = await dattocli(['startbackup', '-i', '--device', source.device, '--wait', '--json'], daemon);
  assert.equal(second.code, 0, second.stderr);
  const { devices } = JSON.parse(second.stdout) as JobStatus;
  assert.equal(devices[0]!.kind, 'incremental');
  assert.ok(devices[0]!.bytes_sent < 8 * MiB, `${devices[0]!.bytes_sent} bytes were sent`);

  const [first, last] = await points();
  assert.equal(last!.id, devices[0]!.point);
  assert.ok(last!.devices[0]!.stored_bytes < first!.devices[0]!.stored_bytes / 2);
  const shown = await dattocliHere(['points', ...at]);
  assert.equal(shown.out.split('\n').length, 4, shown.out);
  assert.match(
    shown.out,
    new RegExp(`^${first!.id.slice(0, 8)} .* ${source.device} .* full +frozen +no$`, 'm'),
  );
  const one = await dattocliHere(['points', 'latest', ...at]);
  assert.match(one.out, new RegExp(`^point +${last!.id}$`, 'm'));
});

test('diff reports how much of the device changed, and where', async () => {
  const [first, last] = await points();
  const diff = await documentLike(diffDocument, [
    'diff',
    first!.id.slice(0, 12),
    'latest',
    '--ranges',
    ...at,
  ]);
  assert.deepEqual([diff.from, diff.to], [first!.id, last!.id]);
  assert.ok(diff.changed_bytes >= 300_000 && diff.changed_bytes < 16 * MiB, `${diff.changed_bytes}`);
  assert.equal(
    diff.changed_bytes,
    diff.ranges!.reduce((sum, { length }) => sum + length, 0),
  );
  assert.match((await dattocliHere(['diff', 'latest', 'latest', ...at])).out, /no difference\n$/);
});

test('restore writes the device to a new one, and to a nearly right one only differences', async (t) => {
  await unmount(files);
  atEnd(t, () => mountDevice(source.device, files));
  const idle = await dattocli(['startbackup', '-i', '--device', source.device, '--wait'], daemon);
  assert.equal(idle.code, 0, idle.stderr);
  const disk = await makeLoop(t, { size });
  const [first] = await points();
  const restored = await dattocliHere(['restore', first!.id, '--to', disk.device, ...at]);
  assert.equal(restored.code, 0, restored.err);
  assert.match(restored.out, /^read back +\d.*, as written$/m);
  await assertWhole('ext4', disk.device, 'frozen');

  await refusedHere(['restore', 'latest', '--to', disk.device, ...at], 'TARGET_OCCUPIED');
  await refusedHere(['restore', 'latest', '--to', disk.device, '--force', '/dev/sda', ...at], 'BAD_USAGE', 2);
  const again = await documentLike(restoreDocument, [
    ...['restore', 'latest', '--to', disk.device, '--force', disk.device, ...at],
  ]);
  assert.ok(again.written < again.equal, `${again.written} written, ${again.equal} equal`);
  await assertWhole('ext4', disk.device, 'idle');
  await assertSameUsed('ext4', source.device, disk.device, size);

  // Uses only the recovery code, like a machine that does not know the vault.
  const image = join(scratch, 'image');
  const codeFile = join(scratch, 'code');
  await writeFile(codeFile, recoveryCode.toLowerCase().replaceAll('-', ' '), { mode: 0o600 });
  const elsewhere = [
    ...['--vault', `vault:${daemon.stateDirectory}/vault`, '--recovery-code-file', codeFile],
    ...['--state-dir', join(scratch, 'rescue')],
  ];
  assert.equal((await dattocliHere(['restore', 'latest', '--to', image, ...elsewhere])).code, 0);
  await exec('cmp', [image, disk.device]);
});

test('restore --files restores files with all their metadata', async () => {
  const to = join(scratch, 'files');
  const [first] = await points();
  const paths = ['/kept/plain', 'kept/linked', '/kept/odd name\n', '/kept/sparse'];
  const { code, out, err } = await dattocliHere([
    ...['restore', '--files', first!.id, ...paths, '--to', to, ...at, ...run],
  ]);
  assert.equal(code, 0, err);
  assert.match(out, /^kept\/plain$/m);
  const plain = statSync(join(to, 'kept/plain'));
  assert.equal(readFileSync(join(to, 'kept/plain'), 'utf8'), 'before\n');
  assert.deepEqual(
    [plain.uid, plain.gid, plain.mode & 0o7777, plain.mtimeMs],
    [1234, 2345, 0o4751, 1e12 + 500],
  );
  assert.equal(statSync(join(to, 'kept/linked')).ino, plain.ino);
  assert.equal(readFileSync(join(to, 'kept/odd name\n'), 'utf8'), 'odd');
  const sparse = statSync(join(to, 'kept/sparse'));
  assert.ok(sparse.size === 8 * MiB && sparse.blocks < 64, `${sparse.blocks} sectors`);
  const { stdout } = await exec('getfattr', ['--only-values', '-n', 'user.note', join(to, 'kept/plain')]);
  assert.equal(stdout, 'kept');
  await refusedHere(['restore', '--files', 'latest', '/kept', '--to', to, ...at, ...run], 'FILE_EXISTS');
  const missing = ['restore', '--files', 'latest', '/no/such', '--to', join(scratch, 'none'), ...at, ...run];
  await refusedHere(missing, 'FILE_ERROR');
});

test('mount shows several points of one filesystem at once, and umount leaves nothing', async () => {
  const [first] = await points();
  const [old, now] = [join(scratch, 'old'), join(scratch, 'now')];
  atEnd(whole, () => unmountLeft([old, now]));
  for (const [point, directory] of [
    [first!.id, old],
    ['latest', now],
  ] as const)
    assert.equal((await dattocliHere(['mount', point, directory, ...at, ...run])).code, 0);
  assert.ok(existsSync(join(old, 'kept/odd name\n')) && !existsSync(join(now, 'kept/odd name\n')));
  assert.ok(!existsSync(join(old, 'kept/new')) && existsSync(join(now, 'kept/new')));
  assert.throws(() => truncateSync(join(now, 'kept/new'), 0), { code: 'EROFS' });
  const mounts = await documentLike(Type.Array(mountDocument), ['mount', ...run]);
  assert.deepEqual(
    mounts.map(({ directory, state }) => [directory, state]),
    [
      [old, 'mounted'],
      [now, 'mounted'],
    ],
  );
  await refusedHere(['mount', 'latest', now, ...at, ...run], 'FILE_EXISTS');
  await refusedHere(['mount', 'latest', join(scratch, 'no', 'such'), ...at, ...run], 'FILE_ERROR');
  assert.ok(!existsSync(join(scratch, 'no')), 'what is mistyped is not made');
  // The mounts have the device's UUID, but the UUID still means the device. So the error is about the vault.
  const { stdout: uuid } = await exec('blkid', ['-s', 'UUID', '-o', 'value', source.device]);
  const nowhere = ['--target', `vault:${join(scratch, 'no')}`];
  const started = await dattocli(['startbackup', '-f', '--device', uuid.trim(), ...nowhere], daemon);
  assert.match(started.stderr, /has no vault|does not exist/);
  for (const directory of [old, now])
    assert.equal((await dattocliHere(['umount', directory, ...run])).code, 0);
  await refusedHere(['umount', now, ...run], 'MOUNT_NOT_FOUND');
  assert.equal((await dattocliHere(['mount', ...run])).out, 'nothing is mounted\n');
  assert.ok(!existsSync(now), 'the directory was made for the mount');
});

async function unmountLeft(directories: readonly string[]): Promise<void> {
  for (const directory of directories) await dattocliHere(['umount', directory, ...run]);
}

test('export serves the point over NBD until Ctrl-C', async () => {
  const entry = fileURLToPath(new URL('../../src/bin/dattocli.ts', import.meta.url));
  const child = spawn(
    process.execPath,
    ['--disable-warning=ExperimentalWarning', entry, 'export', 'latest', ...at, ...run],
    { stdio: ['ignore', 'pipe', 'ignore'] },
  );
  let said = '';
  child.stdout.setEncoding('utf8').on('data', (text: string) => (said += text));
  try {
    await waitFor('the URI is printed', 30_000, () => said.includes('\n'));
    const uri = said.trim();
    const copy = join(scratch, 'copy');
    await exec('nbdcopy', [uri, copy]);
    await exec('cmp', [copy, join(scratch, 'image')]);
    child.kill('SIGINT');
    await once(child, 'exit');
    assert.equal(child.exitCode, 0);
    assert.ok(!existsSync(/socket=([^&]+)/.exec(uri)![1]!));
  } finally {
    child.kill('SIGKILL');
  }
});

test('verify checks at three levels, and points shows the results', async () => {
  for (const args of [
    ['--level', 'reachable'],
    ['--sample', '50%'],
    ['--level', 'filesystem'],
  ]) {
    const found = await documentLike(verifyDocument, ['verify', 'latest', ...args, ...at, ...run]);
    assert.deepEqual([found.outcome, found.kept], ['whole', true]);
    assert.ok(found.coverage === 1 || (args[0] === '--sample' && found.coverage >= 0.4), `${found.coverage}`);
  }
  const [checks] = (await points()).slice(-1).map((point) => point.checks);
  assert.deepEqual(checks!.map(({ level }) => level).sort(), ['filesystem', 'reachable', 'read']);
  assert.match((await dattocliHere(['points', ...at])).out, / whole: filesystem$/m);
});

test('forget keeps by rules and protection; prune frees the space; check finds all whole', async () => {
  const [first, second, last] = (await points()).map(({ id }) => id);
  assert.equal((await dattocliHere(['forget', '--protect', first!, ...at])).code, 0);
  await refusedHere(['forget', second!, first!, ...at], 'POINT_PROTECTED');
  // These points are less than a minute old, so they displace no others.
  const during = await documentLike(forgetDocument, ['forget', '--keep-last', '1', ...at]);
  assert.deepEqual(during.forgotten, []);
  assert.match(JSON.stringify(during.groups), /in the store for less than 24 h/);
  const rules = ['forget', '--keep-last', '1', '--grace', '0', ...at];
  const dry = await documentLike(forgetDocument, [...rules, '--dry-run']);
  assert.deepEqual([dry.dry_run, dry.forgotten], [true, [second]]);
  assert.equal((await points()).length, 3);
  const done = await dattocliHere(rules);
  assert.match(done.out, /^[0-9a-f]{8} .* protected$/m);
  assert.match(done.out, /1 recovery point forgotten; run dattocli vault prune to free the space\n$/);
  assert.equal((await dattocliHere(['forget', '--unprotect', first!, ...at])).code, 0);
  assert.equal((await dattocliHere(['forget', first!.slice(0, 10), ...at])).code, 0);
  assert.deepEqual(
    (await points()).map(({ id }) => id),
    [last],
  );

  const before = await documentLike(statsDocument, ['vault', 'stats', ...at]);
  const would = await documentLike(pruneDocument, [
    'vault',
    'prune',
    '--dry-run',
    '--max-waste',
    '1%',
    ...at,
  ]);
  const pruned = await documentLike(pruneDocument, ['vault', 'prune', '--max-waste', '1%', ...at]);
  assert.ok(would.deleted.packs > 0 && pruned.deleted.packs > 0, JSON.stringify([would, pruned]));
  const afterwards = await documentLike(statsDocument, ['vault', 'stats', ...at]);
  assert.ok(afterwards.bytes < before.bytes, `${before.bytes} bytes, then ${afterwards.bytes}`);
  const check = await documentLike(checkDocument, ['vault', 'check', '--read-data', ...at]);
  assert.deepEqual([check.ok, check.coverage, check.foreign], [true, 1, []]);
  const image = join(scratch, 'again');
  assert.equal((await dattocliHere(['restore', 'latest', '--to', image, ...at])).code, 0);
  await exec('cmp', [image, join(scratch, 'image')]);
  assert.equal((await dattocliHere(['vault', 'unlock', ...at])).out, 'no active writers or locks\n');
});
