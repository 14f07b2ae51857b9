/**
 * Proves the amount of data on the wire, by the count of a foreign server. An incremental sends the written
 * data and little more, and nothing that is free again. A differential without a tracker sends the
 * differences. Each target of a device gets all changes since its own last backup. Data that could not be
 * read is tried again.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { assertNothingLeft, backUp, backUpWell, scratchFor } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameFiles, assertWhole } from '../helpers/image-proof.ts';
import { makeLoop, umount } from '../helpers/loop.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { seeded } from '../helpers/random.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await trackedDaemonFor(whole);

const unitBytes: Readonly<Record<string, number>> = { bytes: 1, KiB: 1024, MiB, GiB: 1024 * MiB };

interface CountedImage {
  readonly image: string;
  readonly target: readonly string[];
  /** Ends the server. Returns the number of bytes written to it, without zeros. */
  written(): Promise<number>;
  /** Starts a new server for the same image, at the same address. */
  again(): Promise<void>;
}

/** Makes an image that nbdkit serves and counts. */
async function countedImage(t: EndingTest, device: string, size: number): Promise<CountedImage> {
  const directory = scratchFor(t);
  const image = join(directory, 'image');
  const statistics = join(directory, 'statistics');
  const socket = join(directory, 'socket');
  writeFileSync(image, '');
  truncateSync(image, size);
  const start = () => {
    rmSync(socket, { force: true });
    return startNbdkit(['--filter=stats', 'file', image, `statsfile=${statistics}`], { socket });
  };
  let server = await start();
  atEnd(t, () => server.stop());
  return {
    image,
    target: ['--device', device, '--target', `nbd+unix:///?socket=${socket}`],
    written: async () => {
      await server.stop();
      const text = readFileSync(statistics, 'utf8');
      const [, number = '0', unit = ''] = /^write: .*?, ([\d.]+) (bytes|KiB|MiB|GiB)/m.exec(text) ?? [];
      return Number(number) * (unitBytes[unit] ?? 0);
    },
    again: async () => {
      server = await start();
    },
  };
}

/** Writes 4 KiB at random distinct places. Returns the number of bytes written. */
function scatter(path: string, room: number, count: number, random: () => number): number {
  const places = new Set<number>();
  while (places.size < count) places.add(Math.floor(random() * (room / 4096)));
  const fd = openSync(path, 'r+');
  for (const place of places) writeSync(fd, randomBytes(4096), 0, 4096, place * 4096);
  fsyncSync(fd);
  closeSync(fd);
  return count * 4096;
}

function onlyDevice(status: JobStatus): JobStatus['devices'][number] {
  assert.equal(status.devices.length, 1);
  return status.devices[0]!;
}

test('4 KiB writes over 1 % of a device of 4 GiB: the incremental sends 1.15 times that at most; after a delete, next to nothing', async (t) => {
  const size = 4096 * MiB;
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  const mountPoint = disk.mountPoint!;
  const counted = await countedImage(t, disk.device, size);
  for (const name of ['kept', 'deleted'])
    await exec('dd', [
      ...[
        'if=/dev/urandom',
        `of=${join(mountPoint, name)}`,
        'bs=1M',
        'count=300',
        'status=none',
        'conv=fsync',
      ],
    ]);
  await backUpWell(daemon, counted.target);
  await counted.written();

  const changed = scatter(join(mountPoint, 'kept'), 300 * MiB, Math.floor(size / 100 / 4096), seeded(4));
  await counted.again();
  const incremental = onlyDevice(await backUpWell(daemon, counted.target, '--incremental'));
  const sent = await counted.written();
  t.diagnostic(`${changed} bytes changed, ${sent} sent (${(sent / changed).toFixed(3)} times)`);
  assert.deepEqual([incremental.kind, incremental.tracker], ['incremental', daemon.tracker]);
  assert.ok(sent >= changed * 0.99 && sent <= changed * 1.15, `${sent} bytes for ${changed}`);
  assert.ok(Math.abs(incremental.bytes_sent - sent) < sent / 100, `${incremental.bytes_sent} were told`);

  rmSync(join(mountPoint, 'deleted'));
  await exec('fstrim', [mountPoint]);
  await counted.again();
  const afterDelete = onlyDevice(await backUpWell(daemon, counted.target, '--incremental'));
  const little = await counted.written();
  t.diagnostic(`after the delete of 300 MiB and fstrim: ${little} bytes sent`);
  assert.equal(afterDelete.kind, 'incremental');
  assert.ok(little < 2 * MiB, `${little} bytes`);
  await assertWhole('ext4', counted.image, 'frozen');
  await assertSameFiles('ext4', counted.image, mountPoint, scratch);
  await assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [mountPoint] });
});

for (const mounted of [true, false])
  test(`a differential without a tracker, ${mounted ? 'mounted' : 'unmounted'}: differences are sent`, async (t) => {
    const size = 160 * MiB;
    const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
    const mountPoint = disk.mountPoint!;
    await fillWithFiles(mountPoint, 48 * MiB);
    const remount = async (work: () => void) => {
      if (!mounted) await exec('mount', [disk.device, mountPoint]);
      work();
      if (!mounted) await umount(mountPoint);
    };
    if (!mounted) await umount(mountPoint);
    const counted = await countedImage(t, disk.device, size);
    const args = [...counted.target, '--tracker', 'none'];
    await backUpWell(daemon, args);
    await counted.written();
    await remount(() => scatter(join(mountPoint, 'large-0'), 8 * MiB, 20, seeded(5)));
    await counted.again();
    const device = onlyDevice(await backUpWell(daemon, args, '--differential'));
    const sent = await counted.written();
    t.diagnostic(`20 places changed, ${sent} bytes sent`);
    assert.deepEqual([device.kind, device.tracker], ['differential', 'none']);
    // Each place costs its unit of 64 KiB. The journal comes on top.
    assert.ok(sent >= 20 * 4096 && sent <= 20 * 65536 + 2 * MiB, `${sent} bytes`);
    await assertWhole('ext4', counted.image, mounted ? 'frozen' : 'idle');
    if (!mounted) await exec('mount', [disk.device, mountPoint]);
    await assertSameFiles('ext4', counted.image, mountPoint, scratch);
  });

test('two targets of one device: each incremental has all since the last backup to its own target', async (t) => {
  const disk = await makeLoop(t, { size: 320 * MiB, filesystem: 'xfs', mount: true });
  const mountPoint = disk.mountPoint!;
  await fillWithFiles(mountPoint, 8 * MiB);
  const targets = ['one', 'two'].map((name) => join(scratch, `${name}.img`));
  const argsOf = (image: string) => ['--device', mountPoint, '--target', image];
  for (const image of targets) await backUpWell(daemon, argsOf(image));
  const incremental = async (image: string) => {
    const device = onlyDevice(await backUpWell(daemon, argsOf(image), '--incremental'));
    assert.equal(device.kind, 'incremental');
    await assertWhole('xfs', image, 'frozen');
    await assertSameFiles('xfs', image, mountPoint, scratch);
    return device.bytes_sent;
  };
  const change = (name: string) => {
    mkdirSync(join(mountPoint, name));
    writeFileSync(join(mountPoint, name, 'file'), randomBytes(3 * MiB));
    scatter(join(mountPoint, 'large-1'), MiB, 30, seeded(name.length));
  };
  const [one = '', two = ''] = targets;
  change('a');
  await incremental(one);
  change('bb');
  await incremental(one);
  assert.ok((await incremental(two)) > 6 * MiB, 'the second target lacked both changes');
  change('ccc');
  await incremental(two);
  await incremental(one);
});

test('data that could not be read and became zeros is read again by the next incremental', async (t) => {
  const size = 24 * MiB;
  const disk = await makeLoop(t, { size });
  const contents = randomBytes(size);
  writeFileSync(disk.image, contents);
  const lost = 40 * 1024 + 512;
  // The loop device reports EIO for data that it cannot read from its file.
  truncateSync(disk.image, size - lost);
  const image = join(scratch, 'bad.img');
  const args = ['--device', disk.device, '--target', image];
  const full = await backUp(daemon, [...args, '--on-read-error', 'zero']);
  assert.deepEqual([full.status.state, full.code], ['SUCCEEDED', 5]);
  assert.ok(
    readFileSync(image)
      .subarray(size - lost)
      .every((byte) => byte === 0),
  );
  // The disk can read the data again, and no process has written anything.
  writeFileSync(disk.image, contents.subarray(size - lost), { flag: 'a' });
  const { status } = await backUp(daemon, args, '--incremental');
  const device = onlyDevice(status);
  assert.deepEqual([status.state, device.kind, device.read_errors], ['SUCCEEDED', 'incremental', []]);
  assert.ok(device.bytes_sent <= 128 * 1024, `${device.bytes_sent} bytes`);
  assert.ok(readFileSync(image).equals(contents));
});

test('writes in the page cache of an unmounted device are in the incremental', async (t) => {
  const size = 32 * MiB;
  const disk = await makeLoop(t, { size });
  const image = join(scratch, 'cached.img');
  const args = ['--device', disk.device, '--target', image];
  const settled = async (kind: '--full' | '--incremental') => {
    const { status } = await backUp(daemon, args, kind);
    assert.deepEqual(
      [status.state, status.devices[0]?.kind],
      ['SUCCEEDED', kind.slice(2)],
      JSON.stringify(status),
    );
    return onlyDevice(status);
  };
  scatter(disk.device, size, 500, seeded(6));
  await settled('--full');
  // The last close would write the cache to the device. This open descriptor prevents that.
  const keptOpen = openSync(disk.device, 'r');
  const written = openSync(disk.device, 'r+');
  writeSync(written, Buffer.alloc(8192, 'late'), 0, 8192, 20 * MiB);
  closeSync(written);
  const { bytes_sent: sent } = await settled('--incremental');
  closeSync(keptOpen);
  assert.equal(sent, 8192);
  assert.ok(readFileSync(image).equals(readFileSync(disk.device)));
});
