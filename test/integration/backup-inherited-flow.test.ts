/**
 * Proves that the flow of the predecessor's README works word for word against Debian's own nbd-server. It
 * begins with `blockdev --getsize64` and ends with an image that e2fsck, cmp and a read-only mount find
 * right. Also proves that the error names the trap of the server's user `nbd`.
 */
import assert from 'node:assert/strict';
import { chmod, chown } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import {
  assertNothingLeft,
  backUp,
  daemonFor,
  refused,
  scratchFor,
  scriptIn,
  untilEnded,
} from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { dattocli } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameFiles, assertSameRanges, assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { type LoopDisk, makeLoop } from '../helpers/loop.ts';
import type { NbdServerProcess } from '../helpers/nbd-process.ts';
import { startNbdServer, startPlainNbdServer } from '../helpers/nbd-server.ts';
import { partcloneUsed } from '../helpers/used-extents.ts';

const whole = { after };
const scratch = scratchFor(whole);
const memory = scratchFor(whole, { memory: true });
const daemon = await daemonFor(whole);

const disk = await makeLoop(whole, { size: 192 * MiB, filesystem: 'ext4', mount: true });
await fillWithFiles(disk.mountPoint!, 32 * MiB);

const uid = Number((await exec('id', ['-u', 'nbd'])).stdout);
const gid = Number((await exec('id', ['-g', 'nbd'])).stdout);

/** Runs `truncate --size=SIZE block_dev.datto` with the size that `blockdev --getsize64 DEV` prints. */
async function makeImage(name: string, owner: 'nbd' | 'root'): Promise<string> {
  const size = (await exec('blockdev', ['--getsize64', disk.device])).stdout.trim();
  await exec('truncate', [`--size=${size}`, name], { cwd: scratch });
  const image = (await exec('readlink', ['-f', name], { cwd: scratch })).stdout.trim();
  if (owner === 'nbd') await chown(image, uid, gid);
  else await chmod(image, 0o644);
  return image;
}

async function uuidOf(source: LoopDisk): Promise<string> {
  return (await exec('blkid', ['-s', 'UUID', '-o', 'value', source.device])).stdout.trim();
}

function serving(t: EndingTest, server: NbdServerProcess): NbdServerProcess {
  atEnd(t, () => server.stop());
  return server;
}

/**
 * Returns the job's status by the command of the README, `dattocli backupstatus JOB`, once the job has ended.
 */
async function ended(job: string): Promise<JobStatus> {
  await untilEnded(daemon, job);
  const plain = await dattocli(['backupstatus', job], daemon);
  assert.equal(plain.code, 0);
  assert.match(plain.stdout, /SUCCEEDED/);
  return JSON.parse((await dattocli(['backupstatus', job, '--json'], daemon)).stdout) as JobStatus;
}

for (const [flag, option] of [
  ['-f', '--device-pair'],
  ['--full', '--vector'],
] as const)
  test(`the README's flow with ${flag} ${option}`, async (t) => {
    const image = await makeImage('block_dev.datto', 'nbd');
    const server = serving(t, await startPlainNbdServer(image));
    const uuid = await uuidOf(disk);
    // The copy of the frozen device, for the comparison.
    const reference = join(memory, 'reference');
    const hook = await scriptIn(scratch, 'copy-device', [
      `dd if=${disk.device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
    ]);
    const args = ['startbackup', flag, option, uuid, '127.0.0.1', String(server.port)];
    const started = await dattocli([...args, '--frozen-hook', hook, '--max-freeze', '20s'], daemon);
    assert.equal(started.code, 0, started.stderr);
    assert.match(started.stdout, /^[0-9a-f-]{36}\n/);

    const status = await ended(started.stdout.split('\n')[0]!);
    assert.deepEqual([status.state, status.error], ['SUCCEEDED', null]);
    assert.equal(status.devices[0]?.uuid, uuid);
    assert.equal(status.devices[0].bytes_unsynced, 0);
    // The plain form offers no flush, and a warning reports that.
    assert.deepEqual(
      status.warnings.map(({ code }) => code),
      ['TARGET_CANNOT_FLUSH'],
    );
    await server.stop();

    await assertWhole('ext4', image);
    const bytes = await assertSameUsed('ext4', reference, image, 192 * MiB);
    assert.ok(bytes > 32 * MiB && bytes < 150 * MiB, `${bytes} bytes compared`);
    // A second oracle for the used blocks.
    await assertSameRanges(reference, image, await partcloneUsed('extfs', reference));
    await assertSameFiles('ext4', image, disk.mountPoint!, scratch);
    await assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [disk.mountPoint!] });
  });

test('a warning about the plain nbd-server gives exit code 5, or 1 with --strict', async (t) => {
  const image = await makeImage('warned.datto', 'nbd');
  const server = serving(t, await startPlainNbdServer(image));
  const pair = ['--device-pair', disk.device, '127.0.0.1', String(server.port), '--max-freeze', '20s'];
  const lenient = await backUp(daemon, pair);
  assert.deepEqual([lenient.status.state, lenient.code, lenient.stderr], ['SUCCEEDED', 5, '']);
  assert.match(lenient.status.warnings[0]?.message ?? '', /no flush.*flush = true/s);
  const strict = await backUp(daemon, [...pair, '--strict']);
  assert.deepEqual([strict.status.state, strict.code], ['SUCCEEDED', 1]);
});

test('with flush configured there is no warning', async (t) => {
  const image = await makeImage('flushed.datto', 'root');
  const exports = { datto: { exportname: image, flush: true, fua: true } };
  const server = serving(t, await startNbdServer({ exports }));
  const { status, code } = await backUp(daemon, [
    ...['--device', disk.mountPoint!, '--target', `${server.uri}/datto`, '--max-freeze', '20s'],
  ]);
  assert.deepEqual([status.state, status.warnings, code], ['SUCCEEDED', [], 0]);
  await assertWhole('ext4', image);
});

test("an image that the server's user nbd cannot write is refused, naming the trap", async (t) => {
  const image = await makeImage('trap.datto', 'root');
  const server = serving(t, await startPlainNbdServer(image));
  const pair = ['--device-pair', await uuidOf(disk), '127.0.0.1', String(server.port)];
  const readOnly = await refused(daemon, ['startbackup', '-f', ...pair], 'TARGET_READ_ONLY');
  assert.match(readOnly.hint ?? '', /user "?nbd"?.*chown nbd/s);

  await server.stop();
  await chmod(image, 0o600);
  const unreadable = serving(t, await startPlainNbdServer(image, { port: server.port! }));
  const denied = await refused(daemon, ['startbackup', '-f', ...pair], 'NBD_REFUSED');
  assert.match(denied.hint ?? '', /user "?nbd"?.*chown nbd/s);
  await unreadable.stop();
  await assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [disk.mountPoint!] });
});
