/**
 * Proves the tracking commands on the machine itself: `tracking` and `tracking stop`, `chains`, `verify`.
 * Also proves that several devices in one incremental end at one instant.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  openSync,
  closeSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import type { ChainDocument, TrackingDocument } from '../../src/api/tracking.ts';
import { backUp, backUpWell, refused, scratchFor } from '../helpers/backup.ts';
import { dattocli } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertWhole, withImageMounted } from '../helpers/image-proof.ts';
import { makeLoop } from '../helpers/loop.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';
import { startAlternating } from '../helpers/writers.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await trackedDaemonFor(whole);

async function document<T>(...command: string[]): Promise<T> {
  const { code, stdout, stderr } = await dattocli([...command, '--json'], daemon);
  assert.equal(code, 0, stderr);
  return JSON.parse(stdout) as T;
}

test('tracking: nothing before the first backup, all details after it, and its end', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
  const look = async () => {
    const { devices } = await document<TrackingDocument>('tracking');
    return devices.find(({ device }) => device === disk.device);
  };
  const before = await look();
  assert.deepEqual([before?.tracker, before?.epoch, before?.memory], [null, null, null]);
  assert.match(before?.why ?? '', /no backup of it has begun to track it/);

  const args = ['--device', disk.device, '--target', join(scratch, 'shown.img')];
  await backUpWell(daemon, args);
  writeFileSync(join(disk.mountPoint!, 'file'), randomBytes(MiB));
  await exec('sync', ['-f', disk.mountPoint!]);
  const shown = await look();
  assert.equal(shown?.tracker, daemon.tracker);
  assert.ok(Date.now() - Date.parse(shown.since ?? '') < 120_000);
  assert.deepEqual([shown.unit, shown.pinned, shown.why], [4096, true, null]);
  assert.ok((shown.memory ?? 0) > 0 && (shown.memory ?? 0) <= 128 * MiB);
  if (daemon.tracker === 'ebpf')
    assert.ok((shown.dirty_bytes ?? 0) >= MiB, `${shown.dirty_bytes ?? 0} dirty`);
  const [chain] = (await document<ChainDocument[]>('chains')).filter(({ device }) => device === disk.device);
  assert.deepEqual([chain?.complete, chain?.torn, chain?.epoch], [true, false, shown.epoch]);

  const stopped = await dattocli(['tracking', 'stop', disk.mountPoint!], daemon);
  assert.deepEqual([stopped.code, stopped.stdout], [0, `${disk.device} is no longer tracked\n`]);
  assert.equal((await look())?.tracker, null);
  const { status, code } = await backUp(daemon, args, '--incremental');
  assert.deepEqual([status.state, status.devices[0]?.kind, code], ['SUCCEEDED', 'differential', 5]);
  assert.equal((await look())?.tracker, daemon.tracker);
  await dattocli(['tracking', 'stop'], daemon);
  assert.equal((await look())?.tracker, null);
  assert.deepEqual(existsSync(daemon.pinDirectory) ? readdirSync(daemon.pinDirectory) : [], []);
  const forced = await refused(
    daemon,
    ['startbackup', '-i', ...args, '--tracker', daemon.tracker === 'ebpf' ? 'none-such' : 'ebpf'],
    daemon.tracker === 'ebpf' ? 'BAD_USAGE' : 'NOT_SUPPORTED',
    2,
  );
  assert.match(forced.message, /tracker/);
});

test('verify: compares all known data; a difference makes the target untrusted', async (t) => {
  const size = 64 * MiB;
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  await fillWithFiles(disk.mountPoint!, 16 * MiB);
  const image = join(scratch, 'verified.img');
  const args = ['--device', disk.device, '--target', image];
  const unknown = await refused(daemon, ['verify', ...args], 'CHAIN_NOT_FOUND');
  assert.match(unknown.message, /nothing is known of/);
  assert.ok(!existsSync(image), 'verify made its target');
  await backUpWell(daemon, args);
  scatterInto(join(disk.mountPoint!, 'large-0'));
  await backUpWell(daemon, args, '--incremental');

  const verified = await dattocli(['verify', '--json', ...args], daemon);
  assert.deepEqual([verified.code, verified.stderr], [0, '']);
  const { kind, state, devices } = JSON.parse(verified.stdout) as JobStatus;
  const [device] = devices;
  assert.deepEqual([kind, state, device?.bytes_mismatched], ['verify', 'SUCCEEDED', 0]);
  assert.ok(device!.bytes_verified > 12 * MiB);
  assert.equal(device!.bytes_verified + device!.bytes_unknown, size);

  // Flips a bit in the middle of a file's data.
  const copy = join(scratch, 'verified.copy');
  copyFileSync(image, copy);
  const at = readFileSync(image).indexOf(
    readFileSync(join(disk.mountPoint!, 'large-2')).subarray(MiB, MiB + 4096),
  );
  assert.ok(at > 0);
  const file = openSync(image, 'r+');
  writeSync(file, Buffer.of(readFileSync(image)[at]! ^ 1), 0, 1, at);
  closeSync(file);
  const wrong = await dattocli(['verify', ...args], daemon);
  assert.equal(wrong.code, 1);
  assert.match(
    wrong.stderr,
    /does not hold what the backups of \S+ left there: 65536 bytes of \d+ that were compared/,
  );
  assert.match(wrong.stdout, /compared +differs +not known/);
  const [chain] = (await document<ChainDocument[]>('chains')).filter(({ target }) => target === image);
  assert.deepEqual([chain?.complete, chain?.torn], [false, true]);
  const next = await backUp(daemon, args, '--incremental');
  assert.deepEqual([next.status.state, next.status.devices[0]?.kind, next.code], ['SUCCEEDED', 'full', 5]);
  assert.equal((await dattocli(['verify', ...args], daemon)).code, 0);
});

test('two devices in one incremental end at one instant', async (t) => {
  const disks = [];
  for (const name of ['a', 'b'])
    disks.push({ name, disk: await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true }) });
  const files = disks.map(({ disk }) => join(disk.mountPoint!, 'counter'));
  const writer = await startAlternating(t, files[0]!, files[1]!);
  const images = disks.map(({ name }) => join(scratch, `instant-${name}.img`));
  const args = disks.flatMap(({ disk }, i) => ['--device', disk.device, '--target', images[i]!]);
  await backUpWell(daemon, args);
  const numberIn = async (image: string): Promise<number> => {
    let number = NaN;
    await withImageMounted('ext4', image, join(scratch, 'mnt'), async () => {
      number = Number(await Promise.resolve(readFileSync(join(scratch, 'mnt', 'counter'), 'utf8')));
    });
    return number;
  };
  let before = 0;
  for (let round = 0; round < 3; round++) {
    const { devices } = await backUpWell(daemon, args, '--incremental');
    assert.deepEqual(
      devices.map(({ kind }) => kind),
      ['incremental', 'incremental'],
    );
    writer.assertRunning();
    for (const image of images) await assertWhole('ext4', image, 'frozen');
    const [a, b] = [await numberIn(images[0]!), await numberIn(images[1]!)];
    assert.ok(b <= a && a - b <= 1 && a > before, `A has ${a}, B has ${b}, after ${before}`);
    before = a;
  }
  await writer.stop();
});

function scatterInto(path: string): void {
  const fd = openSync(path, 'r+');
  for (let place = 0; place < 20; place++) writeSync(fd, randomBytes(4096), 0, 4096, place * 100 * 1024);
  closeSync(fd);
}
