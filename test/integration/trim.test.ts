/**
 * Proves that `--trim` releases space at the target and removes nothing that the image needs. After half of
 * the files are deleted the image file shrinks, and it is whole and the same. Data written into the freed
 * space afterwards is in the next image, even if the daemon was killed while the target trimmed.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { chainId } from '../../src/tracking/chain.ts';
import { readBitmapFile } from '../../src/tracking/bitmap-file.ts';
import {
  assertNothingLeft,
  backUp,
  backUpWell,
  scratchFor,
  startJob,
  untilEnded,
} from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { startDaemon, waitFor } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { assertSameFiles, assertWhole, type FilesystemName } from '../helpers/image-proof.ts';
import { type LoopDisk, makeLoop } from '../helpers/loop.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { startQemuNbd } from '../helpers/qemu-nbd.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await trackedDaemonFor(whole);

const mebibytes = 48;

function allocated(image: string): number {
  return statSync(image).blocks * 512;
}

function onlyDevice(status: JobStatus): JobStatus['devices'][number] {
  assert.equal(status.devices.length, 1);
  return status.devices[0]!;
}

/** Makes a mounted filesystem with a file that stays and one that will be deleted. */
async function halfToGo(t: EndingTest, type: FilesystemName): Promise<LoopDisk> {
  const disk = await makeLoop(t, { size: 320 * MiB, filesystem: type, mount: true });
  for (const name of ['stays', 'goes'])
    writeFileSync(join(disk.mountPoint!, name), randomBytes(mebibytes * MiB), { flush: true });
  return disk;
}

async function deleteHalf(mountPoint: string): Promise<void> {
  rmSync(join(mountPoint, 'goes'));
  await exec('fstrim', [mountPoint]);
}

/** Serves an image file of the size of the device. Returns the target. */
type Serve = (t: EndingTest, image: string) => Promise<string>;

const servers: readonly { name: string; type: FilesystemName; serve: Serve }[] = [
  {
    name: 'nbdkit',
    type: 'ext4',
    serve: async (t, image) => {
      const server = await startNbdkit(['--filter=log', 'file', image, `logfile=${image}.log`]);
      atEnd(t, () => server.stop());
      return server.uri;
    },
  },
  {
    name: 'qemu-nbd',
    type: 'xfs',
    serve: async (t, image) => {
      const server = await startQemuNbd(['--format=raw', '--discard=unmap', image]);
      atEnd(t, () => server.stop());
      return server.uri;
    },
  },
  { name: 'a file', type: 'ext4', serve: (_t, image) => Promise.resolve(image) },
];

for (const { name, type, serve } of servers)
  test(`${type} to ${name}: the image shrinks, and is right before and after the space is used again`, async (t) => {
    const disk = await halfToGo(t, type);
    const mountPoint = disk.mountPoint!;
    const image = join(scratch, `${name}.img`);
    writeFileSync(image, '');
    truncateSync(image, 320 * MiB);
    const target = ['--device', disk.device, '--target', await serve(t, image)];
    const right = async () => {
      await assertWhole(type, image, 'frozen');
      await assertSameFiles(type, image, mountPoint, scratch);
    };
    await backUpWell(daemon, target);
    const before = allocated(image);
    assert.ok(before >= 2 * mebibytes * MiB, `${before} bytes`);

    await deleteHalf(mountPoint);
    const without = onlyDevice(await backUpWell(daemon, target, '--incremental'));
    assert.equal(without.bytes_trimmed, 0);
    assert.ok(allocated(image) >= before - MiB, 'nothing is trimmed unless it is asked for');

    const trimmed = onlyDevice(await backUpWell(daemon, [...target, '--trim'], '--incremental'));
    const shrunk = before - allocated(image);
    t.diagnostic(`${trimmed.bytes_trimmed} bytes trimmed, the image is ${shrunk} bytes smaller`);
    assert.equal(trimmed.kind, 'incremental');
    assert.ok(trimmed.bytes_trimmed >= (mebibytes - 1) * MiB, `${trimmed.bytes_trimmed} bytes`);
    assert.ok(shrunk >= (mebibytes - 2) * MiB, `${shrunk} bytes`);
    await right();

    const again = onlyDevice(await backUpWell(daemon, [...target, '--trim'], '--incremental'));
    assert.ok(again.bytes_trimmed < 2 * MiB, `${again.bytes_trimmed} bytes trimmed once more`);

    writeFileSync(join(mountPoint, 'comes'), randomBytes((mebibytes + 8) * MiB), { flush: true });
    const refilled = onlyDevice(await backUpWell(daemon, target, '--incremental'));
    assert.ok(refilled.bytes_sent >= (mebibytes + 8) * MiB, `${refilled.bytes_sent} bytes sent`);
    await right();
    rmSync(join(mountPoint, 'stays'));
    const compared = onlyDevice(
      await backUpWell(daemon, [...target, '--trim', '--verify', 'full'], '--differential'),
    );
    assert.ok(compared.bytes_trimmed >= (mebibytes - 1) * MiB, 'a differential trims too');
    await right();
    if (name === 'nbdkit') assert.match(readFileSync(`${image}.log`, 'utf8'), /Trim id=/);
    await assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [mountPoint] });
  });

test('blocks that come into use with their old bytes are sent, since the target lost them', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
  const mountPoint = disk.mountPoint!;
  const image = join(scratch, 'same-bytes.img');
  const target = ['--device', disk.device, '--target', image];
  const bytes = Buffer.alloc(8 * MiB, 'the same at every place');
  const write = () => writeFileSync(join(mountPoint, 'file'), bytes, { flush: true });
  write();
  await backUpWell(daemon, target);
  rmSync(join(mountPoint, 'file'));
  await backUpWell(daemon, [...target, '--trim'], '--incremental');
  write();
  for (const tracker of ['auto', 'none']) {
    // By the fingerprints nothing differs from the data that was sent at first.
    const kind = tracker === 'none' ? '--differential' : '--incremental';
    await backUpWell(daemon, [...target, '--tracker', tracker], kind);
    await assertSameFiles('ext4', image, mountPoint, scratch);
    rmSync(join(mountPoint, 'file'));
    await backUpWell(daemon, [...target, '--tracker', tracker, '--trim'], kind);
    write();
  }
  await backUpWell(daemon, [...target, '--tracker', 'none'], '--differential');
  await assertSameFiles('ext4', image, mountPoint, scratch);
});

const unable: readonly { name: string; serve: Serve }[] = [
  {
    name: 'offers neither trim nor zeroes',
    serve: async (t, image) => {
      // Its plugin `split` supports neither trim nor flush.
      const server = await startNbdkit(['--filter=nozero', 'split', image]);
      atEnd(t, () => server.stop());
      return server.uri;
    },
  },
  {
    name: 'fails every trim',
    serve: async (t, image) => {
      const server = await startNbdkit([
        ...['--filter=error', 'file', image],
        ...['error-trim=EIO', 'error-trim-rate=100%'],
      ]);
      atEnd(t, () => server.stop());
      return server.uri;
    },
  },
];

for (const { name, serve } of unable)
  test(`a target that ${name}: one warning, and the image is right`, async (t) => {
    const disk = await halfToGo(t, 'ext4');
    const mountPoint = disk.mountPoint!;
    const image = join(scratch, `${name}.img`);
    writeFileSync(image, '', { mode: 0o666 });
    truncateSync(image, 320 * MiB);
    const target = ['--device', disk.device, '--target', await serve(t, image)];
    const before = (await backUp(daemon, target)).status;
    assert.equal(before.state, 'SUCCEEDED');
    await deleteHalf(mountPoint);
    const { status, code } = await backUp(daemon, [...target, '--trim'], '--incremental');
    const warnings = [...before.warnings.map((warning) => warning.code), 'NOT_TRIMMED'].sort();
    assert.deepEqual(
      [status.state, status.warnings.map((warning) => warning.code).sort(), code],
      ['SUCCEEDED', warnings, 5],
    );
    assert.equal(onlyDevice(status).bytes_trimmed, 0);
    await assertSameFiles('ext4', image, mountPoint, scratch);
  });

test('a daemon is killed while the target trims: the chain lacks those blocks already', async (t) => {
  const disk = await halfToGo(t, 'ext4');
  const mountPoint = disk.mountPoint!;
  const image = join(scratch, 'killed.img');
  const log = join(scratch, 'killed.log');
  writeFileSync(image, '');
  truncateSync(image, 320 * MiB);
  const socket = join(scratch, 'killed.socket');
  const serve = async (more: readonly string[]) => {
    rmSync(socket, { force: true });
    const server = await startNbdkit(['--filter=log', ...more, `logfile=${log}`], { socket });
    atEnd(t, () => server.stop());
    return server;
  };
  const uri = `nbd+unix:///?socket=${socket}`;
  const target = ['--device', disk.device, '--target', uri];
  let killed = await startDaemon({ tracking: true });
  atEnd(t, async () => {
    await killed.stop();
  });
  const quick = await serve(['file', image]);
  await backUpWell(killed, target);
  await quick.stop();
  await deleteHalf(mountPoint);
  // The filter comes after the log, so the request is logged before it waits.
  const slow = await serve(['--filter=delay', 'file', image, 'delay-trim=30']);
  const job = await startJob(killed, [...target, '--trim'], '--incremental');
  await waitFor('the server is asked to trim', 30_000, () => readFileSync(log, 'utf8').includes('Trim id='));
  await killed.kill();

  const uuid = (await exec('blkid', ['-o', 'value', '-s', 'UUID', disk.device])).stdout.trim();
  const id = chainId({ uuid, path: disk.device, size: 0, partitionStart: 0, target: uri });
  const file = await readBitmapFile(join(killed.stateDirectory, 'chains', id, 'pending'));
  const pending = file?.bitmap;
  const asked = [
    ...readFileSync(log, 'utf8').matchAll(/Trim id=\d+ offset=0x([0-9a-f]+) count=0x([0-9a-f]+)/g),
  ];
  assert.ok(pending !== undefined && asked.length > 0);
  for (const [, offset = '', count = ''] of asked)
    for (let at = parseInt(offset, 16), end = at + parseInt(count, 16); at < end; at += pending.unit)
      assert.ok(pending.has(at / pending.unit), `the target was told to trim ${at}, which is not pending`);
  await slow.stop();

  await serve(['file', image]);
  killed = await startDaemon({ paths: killed, tracking: true });
  assert.equal((await untilEnded(killed, job)).state, 'FAILED');
  writeFileSync(join(mountPoint, 'comes'), randomBytes((mebibytes + 8) * MiB), { flush: true });
  await backUp(killed, target, '--incremental');
  await assertWhole('ext4', image, 'frozen');
  await assertSameFiles('ext4', image, mountPoint, scratch);
});
