/**
 * Proves that the image of a filesystem under constant writes is the device at one instant. e2fsck and
 * xfs_repair find it whole without any recovery. cmp finds its used blocks equal to a copy that dd made
 * inside the freeze. Also proves that the length of the freeze is reported correctly.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { assertNothingLeft, backUp, daemonFor, scratchFor, scriptIn } from '../helpers/backup.ts';
import { dattocli } from '../helpers/daemon.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameFiles, assertSameUsed, assertWhole, type FilesystemName } from '../helpers/image-proof.ts';
import { makeLoop } from '../helpers/loop.ts';
import { startChurn, startFio } from '../helpers/writers.ts';

const whole = { after };
const scratch = scratchFor(whole);
const memory = scratchFor(whole, { memory: true });
const daemon = await daemonFor(whole, {
  entry: 'test/helpers/dattod-room.ts',
  environment: { DATTO_ROOM: '32M' },
});
const server = await startDattosrv(whole, ['--create']);

/** Returns the output of `backupstatus --json`, as a script reads it. */
async function statusByCommand(job: string): Promise<JobStatus> {
  return JSON.parse((await dattocli(['backupstatus', job, '--json'], daemon)).stdout) as JobStatus;
}

interface Case {
  readonly type: FilesystemName;
  readonly size: number;
  readonly mkfsArgs?: readonly string[];
  readonly mountOptions?: string;
  /** More is rewritten than fits in the memory for changes, so some goes to the target while frozen. */
  readonly overflows?: true;
}

const cases: readonly Case[] = [
  { type: 'ext4', size: 192 * MiB },
  { type: 'ext4', size: 320 * MiB, overflows: true },
  { type: 'ext4', size: 160 * MiB, mkfsArgs: ['-b', '1024'], mountOptions: 'data=journal' },
  { type: 'ext3', size: 168 * MiB },
  { type: 'xfs', size: 320 * MiB },
];

for (const { type, size, mkfsArgs = [], mountOptions, overflows } of cases)
  test(`${[type, ...mkfsArgs, mountOptions ?? '', overflows ? '(more than memory holds)' : ''].join(' ')} under fio and churn`, async (t) => {
    const disk = await makeLoop(t, {
      size,
      filesystem: type,
      mkfsArgs,
      mount: true,
      ...(mountOptions === undefined ? {} : { mountOptions }),
    });
    const mountPoint = disk.mountPoint!;
    await fillWithFiles(mountPoint, 24 * MiB);
    // XFS keeps allocations in its log for a while. A freeze writes the maps to the disk.
    await exec('fsfreeze', ['--freeze', mountPoint]);
    await exec('fsfreeze', ['--unfreeze', mountPoint]);
    const fio = overflows === true ? { fileSize: '36m', rate: '200m' } : {};
    const writers = [await startFio(t, mountPoint, fio), await startChurn(t, mountPoint)];

    const reference = join(memory, `reference-${type}`);
    const times = join(memory, 'times');
    const hook = await scriptIn(scratch, 'copy-device', [
      `date +%s%3N > ${times}`,
      `dd if=${disk.device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
      `date +%s%3N >> ${times}`,
    ]);
    const name = `${type}-${size}`;
    const { status, code, stderr } = await backUp(daemon, [
      ...['--device', mountPoint, '--target', server.uriOf(`${name}@${size}`)],
      ...['--frozen-hook', hook, '--max-freeze', '20s', '--verify', 'full'],
    ]);
    for (const writer of writers) writer.assertRunning();
    await assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [mountPoint] });
    const warned = overflows === true ? ['FREEZE_OVERFLOW'] : [];
    assert.deepEqual(
      [status.state, status.error, status.warnings.map((warning) => warning.code), code],
      ['SUCCEEDED', null, warned, overflows === true ? 5 : 0],
      stderr,
    );

    const image = join(server.directory, name);
    await assertWhole(type, image, 'frozen');
    assert.ok((await assertSameUsed(type, reference, image, size)) > 24 * MiB);

    const [device] = (await statusByCommand(status.uuid)).devices;
    const [from = 0, to = 0] = (await readFile(times, 'utf8')).split('\n').map(Number);
    const freeze = device?.freeze_ms ?? 0;
    t.diagnostic(
      `frozen for ${freeze} ms, of which the hook took ${to - from} ms; passes: ${device?.pass ?? 0}`,
    );
    assert.ok(to > from && freeze >= to - from && freeze < 20_000, `${freeze} ms, hook ${to - from} ms`);
    for (const writer of writers) await writer.stop();
  });

test('a quiet mounted filesystem: the freeze is short, in milliseconds, and every file is there', async (t) => {
  const disk = await makeLoop(t, { size: 160 * MiB, filesystem: 'ext4', mount: 'mount point with spaces' });
  await fillWithFiles(disk.mountPoint!, 16 * MiB);
  const { status, code } = await backUp(daemon, [
    ...['--device', disk.mountPoint!, '--target', server.uriOf(`quiet@${160 * MiB}`)],
  ]);
  assert.deepEqual([status.state, status.warnings, code], ['SUCCEEDED', [], 0]);
  const [device] = (await statusByCommand(status.uuid)).devices;
  const freeze = device?.freeze_ms ?? 0;
  assert.ok(freeze > 0 && freeze < 5000, `${freeze} ms`);
  const plain = await dattocli(['backupstatus', status.uuid], daemon);
  assert.match(plain.stdout, /frozen|freeze/i);
  await assertWhole('ext4', join(server.directory, 'quiet'));
  await assertSameFiles('ext4', join(server.directory, 'quiet'), disk.mountPoint!, scratch);
});

test('a read-only mount needs no freeze, and reports 0 ms', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true, mountOptions: 'ro' });
  const { status, code } = await backUp(daemon, [
    ...['--device', disk.device, '--target', server.uriOf(`read-only@${64 * MiB}`)],
  ]);
  assert.deepEqual([status.state, status.warnings, code], ['SUCCEEDED', [], 0]);
  assert.equal((await statusByCommand(status.uuid)).devices[0]?.freeze_ms, 0);
  await assertWhole('ext4', join(server.directory, 'read-only'));
});
