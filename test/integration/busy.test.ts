/**
 * Proves backups of databases at work. Three devices, each under constant writes of random 4 KiB blocks, are
 * backed up into a vault, a file and NBD servers. The images of a job equal the devices at one instant, by a
 * copy made inside the freeze. There is no warning, and the freeze is short by itself.
 *
 * Also proves the behaviour if memory has no room, or if the freeze lasts too long. And a change that
 * comparing finds inside the freeze is in the recovery point.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, rmSync, statfsSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, after, test } from 'node:test';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { backUp, backUpWell, daemonFor, scratchFor, scriptIn } from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { type FilesystemName, assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { makeLoop } from '../helpers/loop.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';
import { type TestDirectoryVault, vaultFor } from '../helpers/vault.ts';
import { startStamper } from '../helpers/writers.ts';

/** Filesystem types of statfs(2). */
const ext4Magic = 0xef53;
const xfsMagic = 0x58465342;

const whole = { after };
const scratch = scratchFor(whole, { memory: true });

/** Number of 4 KiB blocks a second that are written to each device. */
const writesPerSecond = 1000;

const types: readonly { readonly type: FilesystemName; readonly size: number }[] = [
  { type: 'ext4', size: 96 * MiB },
  { type: 'ext4', size: 97 * MiB + 4096 },
  { type: 'xfs', size: 320 * MiB },
];

test('three databases at work, into a vault, a file and NBD servers: each image is the frozen device', async (t) => {
  const daemon = await trackedDaemonFor(t);
  const vault = await vaultFor(t, daemon.stateDirectory, { packSize: 4 * MiB });
  const disks = [];
  for (const [i, { type, size }] of types.entries()) {
    const disk = await makeLoop(t, { size, filesystem: type, mount: true });
    await fillWithFiles(disk.mountPoint!, 4 * MiB);
    disks.push({ ...disk, type, size, reference: join(scratch, `busy-reference-${i}`) });
  }
  // The writers start after the first full backup, so that their files are changes for the incrementals.
  const writers = [];
  for (const [seed, { mountPoint }] of disks.entries())
    writers.push(
      await startStamper(t, mountPoint!, {
        ...{ seed, bytesPerSecond: writesPerSecond * 4096, mebibytes: 32, sectors: 8 },
      }),
    );
  const times = join(scratch, 'busy-times');
  const hook = await scriptIn(scratch, 'copy-all', [
    `date +%s%3N > ${times}`,
    ...disks.map(
      ({ device, reference }) => `dd if=${device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
    ),
    `date +%s%3N >> ${times}`,
  ]);
  const image = join(scratch, 'busy-image');
  const [nbdkitImage, server] = [join(scratch, 'busy-nbdkit'), await startDattosrv(t, ['--create'])];
  writeFileSync(nbdkitImage, '');
  truncateSync(nbdkitImage, disks[1]!.size);
  const nbdkit = await startNbdkit(['file', nbdkitImage]);
  atEnd(t, () => nbdkit.stop());
  const targets = [image, nbdkit.uri, server.uriOf(`busy@${disks[2]!.size}`)];
  const images = [image, nbdkitImage, join(server.directory, 'busy')];

  for (const kind of ['--full', '--incremental'] as const)
    for (const into of ['vault', 'images'] as const) {
      const pairs = disks.flatMap(({ device }, i) => [
        ...['--device', device, '--target', into === 'vault' ? vault.target : targets[i]!],
      ]);
      const status = await backUpWell(daemon, [...pairs, '--frozen-hook', hook, '--max-freeze', '20s'], kind);
      for (const writer of writers) writer.assertRunning();
      const [from = 0, to = 0] = readFileSync(times, 'utf8').split('\n').map(Number);
      const frozen = Math.max(...status.devices.map(({ freeze_ms }) => freeze_ms ?? Infinity));
      t.diagnostic(
        `${kind} into ${into}: frozen for ${(frozen - (to - from)).toFixed(0)} ms without the hook, ` +
          `passes ${status.devices.map(({ pass }) => pass).join(', ')}`,
      );
      assert.ok(frozen - (to - from) < 5000, `${frozen} ms, of which the hook took ${to - from}`);
      const point = into === 'vault' ? (await vault.points()).at(-1)! : undefined;
      for (const [i, { type, size, device, reference }] of disks.entries()) {
        assert.equal(`--${status.devices[i]!.kind}`, kind);
        let made = images[i]!;
        if (point !== undefined) {
          made = join(scratch, 'busy-restored');
          await vault.dump(
            point.devices.find(({ path }) => path === device)!,
            made,
          );
        }
        await assertSameUsed(type, reference, made, size);
        await assertWhole(type, made, 'frozen');
        if (point !== undefined) rmSync(made);
      }
    }
});

/**
 * Returns options of a job that copies the device inside the freeze, and the proof that its recovery point
 * equals the copy.
 */
async function pointProof(name: string, device: string, size: number) {
  const reference = join(scratch, `${name}-reference`);
  const hook = await scriptIn(scratch, `copy-${name}`, [
    `dd if=${device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
  ]);
  return {
    args: ['--frozen-hook', hook, '--max-freeze', '20s'],
    assertPoint: async (vault: TestDirectoryVault, status: JobStatus) => {
      const point = (await vault.points()).find(({ id }) => id === status.devices[0]!.point)!;
      const made = join(scratch, `${name}-restored`);
      await vault.dump(point.devices[0]!, made);
      await assertSameUsed('ext4', reference, made, size);
      await assertWhole('ext4', made, 'frozen');
      rmSync(made);
    },
  };
}

test('a freeze with too much data for memory, or too long: another try, a failure with the numbers, then a right backup', async (t) => {
  const daemon = await daemonFor(t, {
    tracking: true,
    entry: 'test/helpers/dattod-room.ts',
    environment: { DATTO_ROOM: '8M' },
  });
  const vault = await vaultFor(t, daemon.stateDirectory);
  const size = 96 * MiB;
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  const file = join(disk.mountPoint!, 'file');
  writeFileSync(file, randomBytes(24 * MiB));
  const pair = ['--device', disk.device, '--target', vault.target];
  const first = await backUpWell(daemon, pair);
  const { args, assertPoint } = await pointProof('room', disk.device, size);
  if (first.devices[0]!.tracker !== 'none') {
    const tries = join(scratch, 'tries');
    const late = await scriptIn(scratch, 'write-late', [
      `dd if=/dev/urandom of=${file} bs=1M count=16 conv=notrunc,fsync status=none`,
      `echo >> ${tries}`,
    ]);
    const { status } = await backUp(daemon, [...pair, '--pre-freeze-hook', late], '--incremental');
    assert.deepEqual([status.state, status.error?.code], ['FAILED', 'FREEZE_TOO_LONG']);
    assert.match(status.error?.message ?? '', /than the 8\.00 MiB of memory and files/);
    assert.equal(readFileSync(tries, 'utf8').length, 3);
    assert.equal((await vault.points()).length, 1);

    const second = await pointProof('second', disk.device, size);
    const once = join(scratch, 'was-frozen');
    const hook = await scriptIn(scratch, 'slow-once', [
      `[ -e ${once} ] || { : > ${once}; sleep 10; }`,
      `exec ${second.args[1]!}`,
    ]);
    const slow = [...pair, '--frozen-hook', hook, '--max-freeze', '4s'];
    await second.assertPoint(vault, await backUpWell(daemon, slow, '--incremental'));
  }
  await assertPoint(vault, await backUpWell(daemon, [...pair, ...args], '--incremental'));
});

test('changes that do not fit in memory go to files, if the state directory lies elsewhere', async (t) => {
  const daemon = await trackedDaemonWithFiles(t);
  if (daemon === undefined) return;
  const vault = await vaultFor(t, daemon.stateDirectory);
  const size = 96 * MiB;
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  const file = join(disk.mountPoint!, 'file');
  writeFileSync(file, randomBytes(24 * MiB));
  const pair = ['--device', disk.device, '--target', vault.target];
  await backUpWell(daemon, pair);
  const late = await scriptIn(scratch, 'write-spilled', [
    `dd if=/dev/urandom of=${file} bs=1M count=16 conv=notrunc,fsync status=none`,
  ]);
  const { args, assertPoint } = await pointProof('spilled', disk.device, size);
  const status = await backUpWell(daemon, [...pair, ...args, '--pre-freeze-hook', late], '--incremental');
  assert.equal(status.devices[0]!.kind, 'incremental');
  await assertPoint(vault, status);
});

/**
 * Returns undefined if tracking is not supported here, or if the daemon's directory is on a filesystem that
 * may not hold the files.
 */
async function trackedDaemonWithFiles(t: TestContext) {
  const { type } = statfsSync(tmpdir());
  if (!(await trackingSupport()).supported || (type !== ext4Magic && type !== xfsMagic)) return undefined;
  return daemonFor(t, {
    tracking: true,
    entry: 'test/helpers/dattod-room.ts',
    environment: { DATTO_ROOM: '4M', DATTO_FILES: 'yes' },
  });
}

test('a change that comparing finds inside the freeze is in the recovery point, also far from all others', async (t) => {
  const daemon = await daemonFor(t);
  const vault = await vaultFor(t, daemon.stateDirectory);
  const size = 512 * MiB;
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  // The file is larger than one page of the map covers. So the change lies in a page that nothing else
  // touches.
  const file = join(disk.mountPoint!, 'file');
  await exec('fallocate', ['-l', '200M', file]);
  await exec('dd', [
    'if=/dev/urandom',
    `of=${file}`,
    'bs=1M',
    'seek=150',
    'count=8',
    'conv=notrunc,fsync',
    'status=none',
  ]);
  const pair = ['--device', disk.device, '--target', vault.target];
  await backUpWell(daemon, [...pair, '--max-freeze', '20s']);
  const { args, assertPoint } = await pointProof('compared', disk.device, size);
  const late = await scriptIn(scratch, 'write-compared', [
    `dd if=/dev/urandom of=${file} bs=1M seek=152 count=1 conv=notrunc,fsync status=none`,
  ]);
  const status = await backUpWell(daemon, [...pair, ...args, '--pre-freeze-hook', late], '--differential');
  await assertPoint(vault, status);
});
