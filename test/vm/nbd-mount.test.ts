/**
 * Proves on a kernel with the nbd module that recovery points of ext4 and XFS are mounted through nbd-client
 * completely. This includes two points of one XFS at once, and a partition of a disk. umount leaves no
 * device, loop device or process, also after the server was killed. Devices that other processes use are not
 * touched, whatever a record contains. Without the module the mounts go through FUSE.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { PointImageSpec } from '../../src/restore/image/point-image.ts';
import { clearMounts, listMounts, mountImage, unmountImage } from '../../src/restore/mount/mount.ts';
import { type MountRecord, writeRecord } from '../../src/restore/mount/mount-record.ts';
import { restoreFiles } from '../../src/restore/files.ts';
import { waitFor } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { attachLoop, detachLoop, makeFilesystem, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { listTree, makeMetadataTree } from '../helpers/metadata-tree.ts';
import { endProcess, isAlive } from '../helpers/nbd-process.ts';
import { storeImage } from '../helpers/restore-point.ts';
import { sh } from './guest.ts';

sh('modprobe nbd nbds_max=6; for m in loop ext4 xfs fuse; do modprobe $m; done');
const scratch = '/tmp/nbd-mount';
const runDirectory = '/run/nbd-mount';
mkdirSync(scratch);
mkdirSync(runDirectory);
// Servers of mounts run with the options of the tests (docs/testing-in-a-vm.md, pitfalls), because V8 may
// crash in the emulated machine.
const node = join(scratch, 'node');
writeFileSync(node, `#!/bin/sh\nexec '${process.execPath}' --liftoff-only "$@"\n`, { mode: 0o755 });
process.execPath = node;

/** The emulated machine is slow. */
const patienceMs = 120_000;

interface Source {
  readonly spec: PointImageSpec;
  readonly image: string;
  readonly listing: string;
}

async function makeSource(type: string, size: number): Promise<Source> {
  const disk = await makeLoop({ after }, { size, filesystem: type, directory: scratch });
  const mountPoint = join(disk.directory, 'source');
  await mountDevice(disk.device, mountPoint);
  await makeMetadataTree(mountPoint);
  writeFileSync(join(mountPoint, 'which'), 'first');
  const listing = await listTree(mountPoint);
  await unmount(mountPoint);
  return { spec: await storeImage(join(scratch, 'store'), disk.image), image: disk.image, listing };
}

let ext4: Source;
let xfs: Source;
/** A later point of the same filesystem. */
let xfsLater: PointImageSpec;

before(async () => {
  ext4 = await makeSource('ext4', 64 * MiB);
  xfs = await makeSource('xfs', 320 * MiB);
  const image = join(scratch, 'later');
  await cp(xfs.image, image);
  const device = await attachLoop(image);
  await mountDevice(device, join(scratch, 'later-mounted'), 'nouuid');
  writeFileSync(join(scratch, 'later-mounted/which'), 'second');
  await unmount(join(scratch, 'later-mounted'));
  await detachLoop(device);
  xfsLater = await storeImage(join(scratch, 'store'), image);
});

async function mount(
  image: PointImageSpec,
  name: string,
  options: { readonly partition?: number; readonly method?: MountRecord['method'] } = {},
): Promise<MountRecord & { directory: string }> {
  const directory = join(scratch, name);
  const subject = { point: 'ab'.repeat(16), device: name };
  const started = performance.now();
  const record = await mountImage({ image, subject, directory, sectorSize: 512, runDirectory, ...options });
  console.log(`# ${name}: by ${record.method ?? '?'} after ${Math.round(performance.now() - started)} ms`);
  return { ...record, directory };
}

/** Returns the numbers of the connected nbd devices. */
function connected(): number[] {
  return readdirSync('/sys/block')
    .filter((name) => name.startsWith('nbd') && existsSync(`/sys/block/${name}/pid`))
    .map((name) => Number(name.slice(3)))
    .sort();
}

async function assertNothingLeft(records: readonly MountRecord[], foreign: readonly number[] = []) {
  assert.deepEqual(await listMounts(runDirectory), []);
  assert.deepEqual(readdirSync(join(runDirectory, 'mounts')), []);
  assert.deepEqual(connected(), foreign);
  for (const { server, directory } of records) {
    assert.ok(!isAlive(server!.pid), 'the server lives on');
    assert.ok(!readFileSync('/proc/self/mountinfo', 'utf8').includes(`${directory ?? ''} `));
  }
  const loops = (await exec('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE'])).stdout;
  assert.ok(!/\/dev\/nbd/.test(loops), loops);
  assert.equal(sh('ps -eo args | grep -E "[n]bd-client|[e]xport-main" || true'), '');
}

/** Connects a foreign export to a device. Returns a way to end it. */
async function connectOther(device: string): Promise<{ bytes(): string; end(): Promise<void> }> {
  const socket = `/run/other-${device.replace('/dev/', '')}`;
  const server = spawn('nbdkit', ['--foreground', '--unix', socket, 'memory', '8M'], { stdio: 'ignore' });
  await waitFor('nbdkit listens', patienceMs, () => existsSync(socket));
  sh(
    `nbd-client -unix ${socket} ${device}; yes theirs | head -c 1M | dd of=${device} oflag=direct bs=64k status=none`,
  );
  return {
    bytes: () =>
      sh(
        `dd if=${device} iflag=direct bs=64k count=16 status=none | sha256sum; blockdev --getsize64 ${device}`,
      ),
    end: async () => {
      sh(`nbd-client -d ${device}`);
      await endProcess(server.pid!, 'SIGKILL');
    },
  };
}

test('an ext4 point through nbd-client, with all its metadata, read-only, and nothing left', async () => {
  const record = await mount(ext4.spec, 'ext4');
  assert.deepEqual([record.method, record.file, record.loop], ['nbd-client', '/dev/nbd0', undefined]);
  assert.equal(readFileSync('/sys/block/nbd0/ro', 'utf8'), '1\n');
  assert.equal(await listTree(record.directory), ext4.listing);
  assert.throws(() => writeFileSync(join(record.directory, 'new'), ''), { code: 'EROFS' });
  assert.deepEqual(
    (await listMounts(runDirectory)).map(({ state }) => state),
    ['mounted'],
  );
  await unmountImage(runDirectory, record.directory);
  await assertNothingLeft([record]);
});

test('two points of one XFS at once', async () => {
  const one = await mount(xfs.spec, 'xfs-1');
  const two = await mount(xfsLater, 'xfs-2');
  assert.deepEqual([one.file, two.file], ['/dev/nbd0', '/dev/nbd1']);
  assert.equal(await listTree(one.directory), xfs.listing);
  const which = [one, two].map(({ directory }) => readFileSync(join(directory, 'which'), 'utf8'));
  assert.deepEqual(which, ['first', 'second']);
  await unmountImage(runDirectory, one.id);
  assert.equal(readFileSync(join(two.directory, 'which'), 'utf8'), 'second');
  await unmountImage(runDirectory, two.directory);
  await assertNothingLeft([one, two]);
});

test('a partition of a whole disk, and single files', async (t) => {
  const disk = await makeLoop(t, {
    size: 64 * MiB,
    partitions: 'label: gpt\nsize=20M,type=U\nsize=30M\n',
    directory: scratch,
  });
  await makeFilesystem(disk.partition(2), 'ext4');
  await mountDevice(disk.partition(2), join(scratch, 'filling'));
  writeFileSync(join(scratch, 'filling/number'), '2');
  await unmount(join(scratch, 'filling'));
  await exec('blockdev', ['--flushbufs', disk.device]);
  const spec = await storeImage(join(scratch, 'store'), disk.image);
  const record = await mount(spec, 'partition', { partition: 2 });
  assert.match(record.loop ?? '', /^\/dev\/loop\d+$/);
  assert.equal(readFileSync(join(record.directory, 'number'), 'utf8'), '2');
  await unmountImage(runDirectory, record.directory);
  await assertNothingLeft([record]);

  const to = join(scratch, 'files');
  const subject = { point: '', device: 'ext4' };
  await restoreFiles({ image: ext4.spec, subject, sectorSize: 512, runDirectory, paths: ['/which'], to });
  assert.equal(readFileSync(join(to, 'which'), 'utf8'), 'first');
  await assertNothingLeft([]);
});

test('umount cleans up after the server was killed, and after an umount by hand', async () => {
  for (const how of ['server', 'hand'] as const) {
    const record = await mount(ext4.spec, `killed-${how}`);
    if (how === 'server') {
      await endProcess(record.server!.pid, 'SIGKILL');
      assert.equal((await listMounts(runDirectory))[0]?.state, 'broken');
      assert.deepEqual(connected(), [0], 'the device outlives its server');
      await unmountImage(runDirectory, record.directory);
    } else {
      sh(`umount ${record.directory}`);
      assert.equal((await listMounts(runDirectory))[0]?.state, 'unmounted');
      assert.equal((await clearMounts(runDirectory)).length, 1);
    }
    await assertNothingLeft([record]);
  }
});

test('devices that other processes use are not touched, whatever a record contains', async () => {
  const other = await connectOther('/dev/nbd0');
  const before = other.bytes();
  const record = await mount(ext4.spec, 'beside');
  assert.equal(record.file, '/dev/nbd1');
  // Our export is gone, and the number belongs to another process when we clean up.
  sh(`umount ${record.directory}; nbd-client -d /dev/nbd1`);
  const later = await connectOther('/dev/nbd1');
  const laterBefore = later.bytes();
  await unmountImage(runDirectory, record.id);
  await assertNothingLeft([record], [0, 1]);

  // A record from the time before this mount lost a race for the device.
  const lost = await mount(ext4.spec, 'lost');
  sh(`umount ${lost.directory}; nbd-client -d /dev/nbd2`);
  assert.match(lost.nbd?.connection ?? '', /^\d+$/);
  await writeRecord(runDirectory, {
    ...lost,
    file: '/dev/nbd0',
    nbd: { ...lost.nbd!, connection: undefined },
  });
  await unmountImage(runDirectory, lost.id);
  await assertNothingLeft([lost], [0, 1]);
  assert.deepEqual([other.bytes(), later.bytes()], [before, laterBefore]);
  await other.end();
  await later.end();
});

test('several mounts that begin at once each get a device', async () => {
  const records = await Promise.all([0, 1, 2].map((n) => mount(n === 0 ? ext4.spec : xfsLater, `many-${n}`)));
  assert.deepEqual(records.map(({ file }) => file).sort(), ['/dev/nbd0', '/dev/nbd1', '/dev/nbd2']);
  for (const { directory } of records)
    assert.match(readFileSync(join(directory, 'which'), 'utf8'), /^(first|second)$/);
  for (const { directory } of records) await unmountImage(runDirectory, directory);
  await assertNothingLeft(records);
});

test('without the module mounts go through FUSE', async () => {
  await waitFor('nbd can be removed', patienceMs, () => sh('modprobe -r nbd 2>&1 || true') === '');
  const record = await mount(ext4.spec, 'fuse');
  assert.equal(record.method, 'nbdfuse');
  assert.equal(readFileSync(join(record.directory, 'which'), 'utf8'), 'first');
  await unmountImage(runDirectory, record.directory);
  await assertNothingLeft([record]);
});
