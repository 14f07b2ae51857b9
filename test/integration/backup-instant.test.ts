/**
 * Proves that the image of a device that is not frozen shows one instant, or that a warning reports the
 * opposite. The cases are filesystems that become writable during their backup, programs that write to a
 * device without an exclusive open, and devices that are replaced. cmp, e2fsck and the files are the judges.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:fs';
import { open, readFile, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { backUp, scratchFor, scriptIn, startJob, untilEnded, untilJob } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameFiles, assertWhole } from '../helpers/image-proof.ts';
import { type LoopDisk, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await trackedDaemonFor(whole);

/**
 * A device without a filesystem is copied as a whole, and a device without tracking is compared. Both give
 * warnings, which these tests ignore.
 */
const expected = ['EVERYTHING_USED', 'FELL_BACK'];
const codes = ({ warnings }: JobStatus): string[] =>
  warnings.map(({ code }) => code).filter((code) => !expected.includes(code));

/**
 * Starts a slow full backup and waits until it has copied something. The data is then written behind the
 * reader and before it.
 */
async function slowBackup(device: string, target: string, options: readonly string[] = []): Promise<string> {
  const job = await startJob(daemon, [
    ...['--device', device, '--target', target, '--rate', '8M', '--verify', 'full', ...options],
  ]);
  await untilJob(daemon, job, 'a part is copied', ({ devices: [it] }) => (it?.bytes_sent ?? 0) > 4 * MiB);
  return job;
}

const rawWriter = `
import os, struct, sys
fd = os.open(sys.argv[1], os.O_RDWR | os.O_DSYNC)
start, end = int(sys.argv[2]), int(sys.argv[3])
n = first = int(sys.argv[4])
while True:
    n += 1
    os.pwrite(fd, struct.pack('<Q', n) * 512, start + n * 7 * 4096 % (end - start))
    if n == first + 1: print("writing", flush=True)
`;

/**
 * Writes 4 KiB with the number of the write at changing places of the device, one write after the other. Like
 * a virtual machine, it does not use O_EXCL. The numbers begin after `first`.
 */
async function startRawWriter(
  t: EndingTest,
  device: string,
  from: number,
  to: number,
  first = 0,
): Promise<() => Promise<void>> {
  const child = spawn('python3', ['-c', rawWriter, device, ...[from, to, first].map(String)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(child, 'close');
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  atEnd(t, stop);
  await once(child.stdout, 'data');
  return stop;
}

/**
 * Asserts that the image has all writes after `first` up to its newest one. So it is the device at one
 * instant.
 */
async function assertOneInstant(image: string, size: number, first: number): Promise<void> {
  const contents = await readFile(image);
  const slots = size / 4096;
  const numbers = Array.from({ length: slots }, (_, slot) => Number(contents.readBigUInt64LE(slot * 4096)));
  const newest = Math.max(...numbers.filter(Number.isSafeInteger));
  for (let n = newest; n > Math.max(first, newest - slots); n--) assert.equal(numbers[(n * 7) % slots], n);
}

async function fillDevice(disk: LoopDisk, size: number): Promise<void> {
  const file = await open(disk.device, constants.O_RDWR);
  for (let at = 0; at < size; at += MiB) await file.write(Buffer.alloc(MiB, 1 + (at / MiB) * 3), 0, MiB, at);
  await file.sync();
  await file.close();
}

for (const [type, options] of [
  ['ext4', ['--max-passes', '1']],
  ['ext4', ['--tracker', 'none']],
  ['xfs', ['--tracker', 'none', '--no-fingerprints']],
] as const)
  test(`${type}, read-only, becomes writable for a while during its backup (${options.join(' ')})`, async (t) => {
    const size = type === 'xfs' ? 320 * MiB : 64 * MiB;
    const disk = await makeLoop(t, { size, filesystem: type, mount: true });
    const mountPoint = disk.mountPoint!;
    await fillWithFiles(mountPoint, 16 * MiB);
    await exec('mount', ['-o', 'remount,ro', mountPoint]);
    const image = join(scratch, `ro-${type}-${options.join('')}`);
    const job = await slowBackup(disk.device, image, options);
    await exec('mount', ['-o', 'remount,rw', mountPoint]);
    await writeFile(join(mountPoint, 'during'), Buffer.alloc(6 * MiB, 'during'));
    for (let n = 0; n < 50; n++) await writeFile(join(mountPoint, `n${n}`), String(n));
    await exec('mount', ['-o', 'remount,ro', mountPoint]);
    const status = await untilEnded(daemon, job);
    assert.deepEqual([status.state, codes(status)], ['SUCCEEDED', []]);
    await assertWhole(type, image, 'frozen');
    await assertSameFiles(type, image, mountPoint, scratch);
  });

for (const tracker of ['auto', 'none'])
  test(`a program writes to an unmounted device without O_EXCL (--tracker ${tracker})`, async (t) => {
    const size = 24 * MiB;
    const disk = await makeLoop(t, { size });
    await fillDevice(disk, size);
    const image = join(scratch, `raw-${tracker}`);
    const options = ['--tracker', tracker];

    // Writes for a while: the image is the device.
    const job = await slowBackup(disk.device, image, options);
    const stopFirst = await startRawWriter(t, disk.device, 0, size);
    await untilJob(daemon, job, 'more is copied', ({ devices: [it] }) => (it?.bytes_sent ?? 0) > 10 * MiB);
    await stopFirst();
    const status = await untilEnded(daemon, job);
    assert.deepEqual([status.state, codes(status)], ['SUCCEEDED', []]);
    await exec('cmp', [disk.device, image]);

    // Writes all the time: the job reports it.
    const first = 1_000_000_000;
    const stop = await startRawWriter(t, disk.device, 0, size, first);
    const torn = await backUp(
      daemon,
      ['--device', disk.device, '--target', image, ...options],
      '--incremental',
    );
    await stop();
    assert.equal(torn.status.state, 'SUCCEEDED');
    // On a busy machine the program may not write at all during the last pass. Then the image is of one
    // instant.
    if (codes(torn.status).length === 0) await assertOneInstant(image, size, first);
    else assert.deepEqual([codes(torn.status), torn.code], [['NOT_ONE_INSTANT'], 5]);

    // The next backup corrects it.
    const good = await backUp(
      daemon,
      ['--device', disk.device, '--target', image, ...options],
      '--incremental',
    );
    assert.deepEqual([good.status.state, codes(good.status)], ['SUCCEEDED', []]);
    await exec('cmp', [disk.device, image]);
  });

test('a write to the file behind a loop device, invisible to tracker and counters', async (t) => {
  const size = 24 * MiB;
  const disk = await makeLoop(t, { size });
  await fillDevice(disk, size);
  for (const tracker of ['auto', 'none']) {
    const image = join(scratch, `behind-${tracker}`);
    const job = await slowBackup(disk.device, image, ['--tracker', tracker]);
    const file = await open(disk.image, 'r+');
    await file.write(Buffer.alloc(4096, tracker), 0, 4096, 0);
    await file.write(Buffer.alloc(4096, tracker), 0, 4096, size - 4096);
    await file.close();
    const status = await untilEnded(daemon, job);
    assert.deepEqual([status.state, codes(status)], ['SUCCEEDED', []]);
    await exec('cmp', [disk.image, image]);
  }
});

test('a program writes to one partition while the filesystem of another one is frozen', async (t) => {
  const disk = await makeLoop(t, { size: 96 * MiB, partitions: 'label: gpt\nsize=64M\nsize=16M\n' });
  await exec('mkfs.ext4', ['-q', '-F', disk.partition(1)]);
  const mountPoint = join(disk.directory, 'mnt');
  await mountDevice(disk.partition(1), mountPoint);
  atEnd(t, () => unmount(mountPoint));
  await fillWithFiles(mountPoint, 4 * MiB);
  const hook = await scriptIn(scratch, 'wait', ['sleep 0.3']);
  for (const [device, warned] of [
    [disk.device, ['NOT_ONE_INSTANT']],
    // The other partition does not belong to this one.
    [disk.partition(1), []],
  ] as const) {
    const stop = await startRawWriter(t, disk.partition(2), 0, 4 * MiB);
    const image = join(scratch, `frozen-${warned.length}`);
    const { status } = await backUp(daemon, [
      ...['--device', device, '--target', image, '--frozen-hook', hook],
    ]);
    await stop();
    assert.deepEqual([status.state, status.error, codes(status)], ['SUCCEEDED', null, warned]);
  }
});

test('a device that grows, shrinks, or gets another file before its backup ends', async (t) => {
  const size = 24 * MiB;
  const other = join(scratch, 'other');
  await writeFile(other, '');
  await truncate(other, size);
  const changes: readonly [name: string, change: (disk: LoopDisk) => Promise<unknown>, message: RegExp][] = [
    ['grown', (disk) => resize(disk, 32 * MiB), /has 33554432 bytes now, and had 25165824/],
    ['shrunk', (disk) => resize(disk, 20 * MiB), /25165824 bytes .*20971520/],
    // LOOP_CHANGE_FD: the device stays open all the time.
    [
      'exchanged',
      (disk) =>
        exec('python3', [
          '-c',
          'import fcntl,os,sys;fcntl.ioctl(os.open(sys.argv[1],0),0x4C06,os.open(sys.argv[2],0))',
          ...[disk.device, other],
        ]),
      /is another device .* disk sequence number|changed/,
    ],
  ];
  for (const [name, change, message] of changes)
    for (const mountOptions of name === 'exchanged' ? [undefined] : [undefined, 'rw']) {
      const disk = await makeLoop(t, { size, readOnly: name === 'exchanged' });
      if (name === 'exchanged') {
        const file = await open(disk.image, 'r+');
        for (let at = 0; at < size; at += MiB) await file.write(Buffer.alloc(MiB, 1), 0, MiB, at);
        await file.close();
      } else if (mountOptions === undefined) await fillDevice(disk, size);
      else {
        await exec('mkfs.ext4', ['-q', '-F', disk.device]);
        const mountPoint = join(disk.directory, 'mnt');
        await mountDevice(disk.device, mountPoint);
        atEnd(t, () => unmount(mountPoint));
        await fillWithFiles(mountPoint, 12 * MiB);
      }
      const job = await slowBackup(disk.device, join(scratch, `${name}-${mountOptions ?? 'idle'}`));
      await change(disk);
      const status = await untilEnded(daemon, job);
      assert.deepEqual([status.state, status.error?.code], ['FAILED', 'DEVICE_GONE'], name);
      assert.match(status.error?.message ?? '', message);
    }
});

async function resize(disk: LoopDisk, size: number): Promise<void> {
  await truncate(disk.image, size);
  await exec('losetup', ['--set-capacity', disk.device]);
}
