/**
 * Proves that recovery points are mounted read-only and completely, several of one XFS at once, by each
 * method that this machine has. umount leaves nothing, whatever died or was unmounted before. Single files
 * are restored with their metadata. Verifications find errors.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  chownSync,
  existsSync,
  lchownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { cp, open, readFile, stat, truncate } from 'node:fs/promises';
import { release, tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { AgentError } from '../../src/base/errors.ts';
import { silentLog } from '../../src/base/log.ts';
import { exportImage } from '../../src/restore/export/export-image.ts';
import { HeldDirectory, holdDirectory } from '../../src/base/held-directory.ts';
import { Staging, placeFiles } from '../../src/restore/files/place-files.ts';
import { restoreFiles } from '../../src/restore/files.ts';
import type { ImageSpec } from '../../src/restore/image/open-image.ts';
import type { PointImageSpec } from '../../src/restore/image/point-image.ts';
import { clearMounts, listMounts, mountImage, unmountImage } from '../../src/restore/mount/mount.ts';
import type { MountRecord } from '../../src/restore/mount/mount-record.ts';
import { verifyImage } from '../../src/restore/verify/verify-image.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import {
  attachLoop,
  detachLoop,
  makeFilesystem,
  makeLoop,
  mountDevice,
  umount,
  unmount,
} from '../helpers/loop.ts';
import { listTree, makeMetadataTree } from '../helpers/metadata-tree.ts';
import { endProcess, isAlive } from '../helpers/nbd-process.ts';
import { storeImage } from '../helpers/restore-point.ts';

const whole = { after };
const scratch = mkdtempSync(join(tmpdir(), 'restore-mount-'));
atEnd(whole, () => rmSync(scratch, { recursive: true }));
const runDirectory = join(scratch, 'run');

interface Source {
  readonly spec: PointImageSpec;
  readonly image: string;
  readonly listing: string;
}

async function makeSource(name: string, type: string, size: number): Promise<Source> {
  const disk = await makeLoop(whole, { size, filesystem: type, directory: scratch });
  const mountPoint = join(disk.directory, 'source');
  await mountDevice(disk.device, mountPoint);
  let listing;
  try {
    await makeMetadataTree(mountPoint);
    writeFileSync(join(mountPoint, 'which'), name);
    listing = await listTree(mountPoint);
  } finally {
    await unmount(mountPoint);
  }
  return { spec: await storeImage(join(scratch, 'store'), disk.image), image: disk.image, listing };
}

const ext4 = await makeSource('first', 'ext4', 96 * MiB);
const xfs = await makeSource('first', 'xfs', 320 * MiB);

/** A later point of the same filesystem. */
const xfsLater = await (async () => {
  const image = join(scratch, 'later');
  await cp(xfs.image, image);
  const device = await attachLoop(image);
  try {
    const mountPoint = join(scratch, 'later-mounted');
    await mountDevice(device, mountPoint, 'nouuid');
    writeFileSync(join(mountPoint, 'which'), 'second');
    await unmount(mountPoint);
  } finally {
    await detachLoop(device);
  }
  return storeImage(join(scratch, 'store'), image);
})();

interface Mounting {
  readonly method?: MountRecord['method'];
  readonly partition?: number;
  readonly over?: boolean;
}

/** Mounts the image, and removes all remains at the end of the test. */
async function mount(
  t: EndingTest,
  image: ImageSpec,
  name: string,
  options: Mounting = {},
): Promise<MountRecord & { directory: string }> {
  const directory = join(scratch, name);
  atEnd(t, async () => {
    await unmountImage(runDirectory, directory).catch((error: unknown) => {
      if (!(error instanceof AgentError && error.code === 'MOUNT_NOT_FOUND')) throw error;
    });
  });
  const subject = { point: 'ab'.repeat(16), device: name };
  const record = await mountImage({ image, subject, directory, sectorSize: 512, runDirectory, ...options });
  return { ...record, directory };
}

async function assertNothingLeft(record: MountRecord, ...places: string[]): Promise<void> {
  assert.deepEqual(await listMounts(runDirectory), []);
  assert.deepEqual(readdirSync(join(runDirectory, 'mounts')), []);
  const left = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .map((line) => line.split(' ')[4] ?? '');
  assert.deepEqual(
    left.filter((path) => path.startsWith(scratch)),
    places,
  );
  for (const process of [record.server, record.fuse]) assert.ok(!isAlive(process!.pid));
  const loops = (await exec('losetup', ['--list', '--noheadings', '--output', 'BACK-FILE'])).stdout;
  assert.ok(!loops.includes(runDirectory), loops);
}

for (const method of ['nbdfuse', 'qemu-storage-daemon'] as const)
  test(`an ext4 point through ${method}, with all its metadata, read-only`, async (t) => {
    const record = await mount(t, ext4.spec, `ext4-${method}`, { method });
    assert.equal(await listTree(record.directory), ext4.listing);
    assert.throws(() => writeFileSync(join(record.directory, 'new'), ''), { code: 'EROFS' });
    const [listed] = await listMounts(runDirectory);
    assert.deepEqual(
      [listed?.state, listed?.directory, listed?.filesystem],
      ['mounted', record.directory, 'ext4'],
    );
    await assert.rejects(mount(t, ext4.spec, `ext4-${method}`), { code: 'FILE_EXISTS' });
    assert.equal((await listMounts(runDirectory)).length, 1);
    await unmountImage(runDirectory, record.directory);
    await assertNothingLeft(record);
    assert.ok(!existsSync(record.directory), 'a directory that was made for the mount goes with it');
    await assert.rejects(unmountImage(runDirectory, record.directory), { code: 'MOUNT_NOT_FOUND' });
  });

test('two points of one XFS at once', async (t) => {
  const one = await mount(t, xfs.spec, 'xfs-1');
  const two = await mount(t, xfsLater, 'xfs-2');
  assert.equal(await listTree(one.directory), xfs.listing);
  assert.deepEqual(
    await Promise.all([one, two].map(({ directory }) => readFile(join(directory, 'which'), 'utf8'))),
    ['first', 'second'],
  );
  await unmountImage(runDirectory, one.id);
  assert.equal(await readFile(join(two.directory, 'which'), 'utf8'), 'second');
  await unmountImage(runDirectory, two.directory);
  await assertNothingLeft(one);
  await assertNothingLeft(two);
});

test('umount cleans up after its server or FUSE process was killed, and after an umount by hand', async (t) => {
  for (const victim of ['server', 'fuse', 'hand', 'busy'] as const) {
    const record = await mount(t, ext4.spec, `killed-${victim}`);
    const state = async (): Promise<unknown> => (await listMounts(runDirectory))[0]?.state;
    if (victim === 'hand') {
      await umount(record.directory);
      assert.equal(await state(), 'unmounted');
      assert.deepEqual(
        (await clearMounts(runDirectory)).map(({ id }) => id),
        [record.id],
      );
    } else if (victim === 'busy') {
      assert.deepEqual(await clearMounts(runDirectory), []);
      const file = await open(join(record.directory, 'big'));
      try {
        await assert.rejects(unmountImage(runDirectory, record.directory), { code: 'DEVICE_BUSY' });
        assert.equal(await state(), 'mounted');
      } finally {
        await file.close();
      }
      await unmountImage(runDirectory, record.directory);
    } else {
      await endProcess(record[victim]!.pid, 'SIGKILL');
      assert.equal(await state(), 'broken');
      // Without its caches the kernel no longer finds the file behind the loop device, and reports it as
      // deleted.
      writeFileSync('/proc/sys/vm/drop_caches', '3');
      await readFile(join(record.directory, 'big')).catch(() => undefined);
      await unmountImage(runDirectory, record.directory);
    }
    await assertNothingLeft(record);
  }
});

test('a partition of a whole disk', async (t) => {
  const disk = await makeLoop(t, {
    size: 128 * MiB,
    partitions: 'label: gpt\nsize=40M,type=U\nsize=40M\nsize=40M\n',
    directory: scratch,
  });
  await makeFilesystem(disk.partition(1), 'vfat');
  for (const number of [2, 3]) {
    await makeFilesystem(disk.partition(number), 'ext4');
    const mountPoint = join(scratch, 'filling');
    await mountDevice(disk.partition(number), mountPoint);
    writeFileSync(join(mountPoint, 'number'), String(number));
    await unmount(mountPoint);
  }
  await exec('blockdev', ['--flushbufs', disk.device]);
  const spec = await storeImage(join(scratch, 'store'), disk.image);
  await assert.rejects(mount(t, spec, 'partition'), (error: AgentError) => {
    assert.equal(error.code, 'BAD_USAGE');
    assert.match(error.message, /3 partitions, .* 1 \(vfat, 40.00 MiB\), 2 \(ext4, 40.00 MiB\), 3 \(ext4/);
    return true;
  });
  const record = await mount(t, spec, 'partition', { partition: 3 });
  assert.equal(await readFile(join(record.directory, 'number'), 'utf8'), '3');
  await unmountImage(runDirectory, record.directory);
  await assertNothingLeft(record);

  const subject = { point: '', device: disk.device };
  const checked = await verifyImage({
    image: spec,
    subject,
    level: 'filesystem',
    sectorSize: 512,
    runDirectory,
  });
  assert.deepEqual([checked.outcome, checked.problems, checked.notes.length], ['whole', [], 1]);
});

test('single files with all their metadata, and no path leads out of the point', async () => {
  const subject = { point: '', device: 'ext4' };
  const common = { image: ext4.spec, subject, sectorSize: 512, runDirectory };
  const to = join(scratch, 'restored-files');
  const all = await restoreFiles({ ...common, paths: ['/'], to });
  assert.deepEqual(all.paths, ['.']);
  assert.equal(await listTree(to), ext4.listing);
  await assert.rejects(restoreFiles({ ...common, paths: ['/etc'], to }), { code: 'FILE_EXISTS' });

  // Uses a link to a directory in the point that the running system has too: /etc.
  const some = join(scratch, 'restored-some');
  const { paths } = await restoreFiles({
    ...common,
    paths: ['/way in/er', 'big', 'etc/hard link of big'],
    to: some,
  });
  assert.deepEqual(paths, ['etc/deep/er', 'big', 'etc/hard link of big']);
  const inode = async (path: string): Promise<string> =>
    (await exec('stat', ['-c', '%i %h', join(some, path)])).stdout;
  assert.equal(await inode('big'), await inode('etc/hard link of big'));
  assert.ok(!existsSync(join(some, 'etc/shadow')));
  await assert.rejects(restoreFiles({ ...common, paths: ['/nowhere'], to: join(scratch, 'none') }), {
    code: 'FILE_ERROR',
    message: /has no \/nowhere \(ENOENT\)/,
  });
  const mounted = join(scratch, 'for-rsync');
  const device = await attachLoop(ext4.image, { readOnly: true });
  try {
    await mountDevice(device, mounted, 'ro,noload');
    try {
      const args = ['-n', '--checksum', '-aHAXS', '--itemize-changes', '--exclude=/lost+found', '--delete'];
      assert.equal((await exec('rsync', [...args, `${mounted}/`, `${to}/`])).stdout, '');
    } finally {
      await unmount(mounted);
    }
  } finally {
    await detachLoop(device);
  }
  assert.deepEqual(readdirSync(join(runDirectory, 'mounts')), []);
});

/** Makes a place that a user other than root may enter. Everything else here belongs to root alone. */
function sharedPlace(t: EndingTest): string {
  const place = mkdtempSync(join(tmpdir(), 'restore-shared-'));
  atEnd(t, () => rmSync(place, { recursive: true }));
  chmodSync(place, 0o755);
  return place;
}

const stranger = 65534;

test('files are restored over existing ones, and never through a link', async (t) => {
  const place = sharedPlace(t);
  const victim = join(place, 'victim');
  const dest = join(place, 'dest');
  const common = {
    ...{ image: ext4.spec, subject: { point: '', device: 'ext4' }, sectorSize: 512, runDirectory },
    ...{ to: dest, overwrite: true },
  };
  const was = async (): Promise<string> => `${await listTree(victim)}${(await stat(victim)).mtimeMs}`;
  const prepare = async (): Promise<string> => {
    for (const path of [victim, dest]) {
      rmSync(path, { recursive: true, force: true });
      mkdirSync(join(path, 'deep'), { recursive: true });
    }
    for (const name of ['big', 'shadow']) writeFileSync(join(victim, name), 'ORIGINAL');
    for (const path of [dest, join(dest, 'deep')]) chownSync(path, stranger, stranger);
    return was();
  };
  const refused = (path: RegExp) => ({ code: 'FILE_EXISTS', message: path });

  // The cases: the directory is a link, a directory on the way is one, the file is one, the file is a
  // directory.
  let before = await prepare();
  symlinkSync(victim, join(dest, 'etc'));
  for (const paths of [['/etc'], ['/etc/shadow'], ['/']])
    await assert.rejects(
      restoreFiles({ ...common, paths }),
      refused(/dest\/etc is a directory in the recovery point, and a symbolic link here/),
    );
  assert.deepEqual([await was(), readdirSync(dest).sort()], [before, ['deep', 'etc']]);
  before = await prepare();
  mkdirSync(join(dest, 'big'));
  await assert.rejects(
    restoreFiles({ ...common, paths: ['/big'] }),
    refused(/big is a directory here, and a file in the recovery point/),
  );
  before = await prepare();
  symlinkSync(join(victim, 'big'), join(dest, 'big'));
  mkdirSync(join(dest, 'etc'));
  linkSync(join(victim, 'shadow'), join(dest, 'etc/shadow'));
  writeFileSync(join(dest, 'etc/kept'), 'mine');
  await exec('setfacl', ['-m', 'u:nobody:rwx', join(dest, 'etc')]);
  await restoreFiles({ ...common, paths: ['/big', '/etc'] });
  assert.equal(await was(), before);
  assert.ok(lstatSync(join(dest, 'big')).isFile());
  assert.equal(await readFile(join(dest, 'etc/kept'), 'utf8'), 'mine');
  // An existing directory gets the metadata of the point's. rsync compares owners, modes, ACLs and the rest.
  const mounted = join(scratch, 'for-overwrite');
  const device = await attachLoop(ext4.image, { readOnly: true });
  try {
    await mountDevice(device, mounted, 'ro,noload');
    try {
      const args = ['-n', '--checksum', '-aHAXS', '--itemize-changes'];
      const { stdout } = await exec('rsync', [...args, `${mounted}/etc`, `${mounted}/big`, `${dest}/`]);
      assert.doesNotMatch(stdout, /etc\/$|shadow/m, stdout);
    } finally {
      await unmount(mounted);
    }
  } finally {
    await detachLoop(device);
  }

  // Another filesystem is mounted below the destination.
  await prepare();
  mkdirSync(join(dest, 'etc'));
  await exec('mount', ['-t', 'tmpfs', 'none', join(dest, 'etc')]);
  try {
    await restoreFiles({ ...common, paths: ['/etc/shadow', '/big'] });
    const { mode, size } = lstatSync(join(dest, 'etc/shadow'));
    assert.deepEqual([mode & 0o7777, size], [0o4755, 7]);
    assert.deepEqual(readdirSync(join(dest, 'etc')), ['shadow']);
  } finally {
    await umount(join(dest, 'etc'));
  }

  // The kernel does not rename into a bind mount of the same filesystem, nor into a directory with another
  // project ID.
  await prepare();
  const disk = await makeLoop(t, { size: 320 * MiB, filesystem: 'xfs', directory: scratch });
  await mountDevice(disk.device, dest);
  try {
    for (const path of ['etc', 'real', 'real/deep']) mkdirSync(join(dest, path));
    writeFileSync(join(dest, 'real/shadow'), 'old');
    await exec('mount', ['--bind', join(dest, 'real'), join(dest, 'etc')]);
    await exec('chattr', ['+P', '-p', '4711', join(dest, 'real/deep')]);
    try {
      await restoreFiles({ ...common, paths: ['/etc', '/big'] });
    } finally {
      await umount(join(dest, 'etc'));
    }
    assert.equal(await readFile(join(dest, 'real/shadow'), 'utf8'), 'secret\n');
    assert.deepEqual(readdirSync(join(dest, 'etc')), []);
    assert.match((await exec('lsattr', ['-p', join(dest, 'real/deep')])).stdout, /^ *4711 /m);
    const listed = (await exec('find', [dest, '-name', '.dattod*'])).stdout;
    assert.equal(listed, '');
  } finally {
    await unmount(dest);
  }

  // The copy runs out of room. An incomplete file replaces nothing, and does not appear.
  await prepare();
  await exec('mount', ['-t', 'tmpfs', '-o', 'size=4m', 'none', dest]);
  try {
    const old = Buffer.alloc(2 * MiB, 'old');
    const cutOff = {
      code: 'FILE_ERROR',
      message: /\(1 file was not whole and not put into place\).*No space left on device/,
    };
    mkdirSync(join(dest, 'etc'), { mode: 0o700 });
    writeFileSync(join(dest, 'etc/shadow'), 'old');
    for (const name of ['big', 'other']) {
      writeFileSync(join(dest, name), old);
      await assert.rejects(restoreFiles({ ...common, paths: ['/etc/shadow', '/big'] }), cutOff);
      assert.ok((await readFile(join(dest, name))).equals(old));
      assert.deepEqual(readdirSync(dest).sort(), [name, 'etc'].sort());
      assert.equal(await readFile(join(dest, 'etc/shadow'), 'utf8'), 'secret\n');
      assert.equal(lstatSync(join(dest, 'etc')).mode & 0o777, 0o700, 'as it was');
      rmSync(join(dest, name));
    }
  } finally {
    await umount(dest);
  }

  // The destination itself is a link that a user has made. Links made by root are followed.
  before = await prepare();
  const theirs = join(place, 'theirs');
  mkdirSync(theirs);
  symlinkSync(victim, join(theirs, 'link'));
  lchownSync(join(theirs, 'link'), stranger, stranger);
  await assert.rejects(restoreFiles({ ...common, paths: ['/big'], to: join(theirs, 'link/deep') }), {
    code: 'FILE_ERROR',
    message: /theirs\/link is a symbolic link that a user other than root could have made/,
  });
  lchownSync(join(theirs, 'link'), 0, 0);
  chownSync(theirs, stranger, stranger);
  await assert.rejects(restoreFiles({ ...common, paths: ['/big'], to: join(theirs, 'link') }), {
    code: 'FILE_ERROR',
  });
  assert.equal(await was(), before);
  symlinkSync(dest, join(place, 'link'));
  await restoreFiles({ ...common, paths: ['/big'], to: join(place, 'link') });
  assert.ok(existsSync(join(dest, 'big')));
  assert.ok(!readdirSync(dest).some((name) => name.startsWith('.dattod')));
});

test('a filesystem without owners and modes is a valid destination if only root may write there', async (t) => {
  const place = sharedPlace(t);
  const disk = await makeLoop(t, { size: 32 * MiB, directory: scratch });
  await exec('mkntfs', ['--force', '--quick', '--quiet', disk.device]);
  const common = { image: ext4.spec, subject: { point: '', device: 'ext4' }, sectorSize: 512, runDirectory };
  for (const options of ['umask=022', 'umask=000', 'uid=1000,umask=022']) {
    await exec('ntfs-3g', ['-o', options, disk.device, place]);
    try {
      const to = join(place, 'to');
      for (let tries = 0; tries < 2; tries++) {
        const outcome = await restoreFiles({ ...common, paths: ['/big'], to, overwrite: true }).then(
          () => 'done',
          (error: unknown) => String(error),
        );
        if (options === 'umask=022') {
          assert.match(outcome, /^done$|Not everything could be copied to [^(]*: /);
          assert.equal(lstatSync(join(to, 'big')).size, 3 * MiB);
        } else {
          assert.match(
            outcome,
            /gives all files the owner \d+ and the mode 7[57][57], and supports symbolic links/,
          );
        }
        // So the next try is not refused because of existing files.
        assert.ok(!readdirSync(to).some((name) => name.startsWith('.dattod')));
      }
    } finally {
      await unmount(place);
    }
  }
});

test('a user who changes the destination during the restore gets nothing written elsewhere', async (t) => {
  const place = sharedPlace(t);
  const [victim, dest, source] = ['victim', 'dest', 'source'].map((name) => join(place, name));
  for (const path of [victim!, dest!, join(source!, 'etc')]) mkdirSync(path, { recursive: true });
  writeFileSync(join(victim!, 'passwd'), 'ORIGINAL');
  writeFileSync(join(source!, 'etc/passwd'), 'FROM THE POINT', { mode: 0o4755 });
  chownSync(dest!, stranger, stranger);
  const before = `${await listTree(victim!)}${(await stat(victim!)).mtimeMs}`;
  // Replaces the directory by a link and back, as fast as it can, and moves away the files that root makes.
  const racer = spawn(process.execPath, ['-e', racing, dest!, victim!], {
    ...{ uid: stranger, gid: stranger, cwd: '/' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(racer, 'exit');
  const origin = await HeldDirectory.open(source!);
  try {
    await once(racer.stdout, 'data');
    const counts = { placed: 0, refused: 0 };
    const copy = async (from: HeldDirectory, to: HeldDirectory): Promise<void> => {
      await exec('cp', ['-dR', '--preserve=all', `${from.path}/.`, to.path]);
    };
    for (let round = 0; round < 150; round++) {
      const held = await holdDirectory(dest!);
      const staging = await Staging.make(held).catch(() => undefined);
      try {
        if (staging === undefined) continue;
        await copy(origin, staging.tree);
        await placeFiles(staging.tree, held, { overwrite: true, copy });
        counts.placed++;
      } catch (error) {
        assert.ok(error instanceof AgentError, String(error));
        counts.refused++;
      } finally {
        await staging?.remove();
        await held.close();
      }
    }
    t.diagnostic(JSON.stringify(counts));
    assert.ok(counts.placed > 0 && counts.refused > 0, JSON.stringify(counts));
  } finally {
    racer.kill('SIGKILL');
    await ended;
    await origin.close();
  }
  assert.equal(`${await listTree(victim!)}${(await stat(victim!)).mtimeMs}`, before);
});

/** Runs as an unprivileged user who owns the directory. */
const racing = `
  const fs = require('node:fs');
  const [dest, victim] = process.argv.slice(1);
  const quietly = (work) => { try { work(); } catch {} };
  process.stdout.write('racing');
  for (let n = 0; ; n++) {
    quietly(() => fs.mkdirSync(dest + '/etc'));
    quietly(() => fs.renameSync(dest + '/etc', dest + '/aside' + (n % 8)));
    quietly(() => fs.symlinkSync(victim, dest + '/etc'));
    if (n % 8 === 0)
      for (const name of fs.readdirSync(dest).filter((each) => each.startsWith('.dattod'))) {
        quietly(() => fs.renameSync(dest + '/' + name, dest + '/stolen'));
        quietly(() => fs.symlinkSync(victim, dest + '/' + name));
      }
    quietly(() => fs.unlinkSync(dest + '/etc'));
  }
`;

test('a btrfs point is mounted next to its source, and shows its own content', async (t) => {
  const source = await makeLoop(t, { size: 128 * MiB, directory: scratch });
  await exec('mkfs.btrfs', ['--quiet', '--nodiscard', source.device]);
  const live = join(scratch, 'btrfs-live');
  await mountDevice(source.device, live);
  atEnd(t, () => unmount(live));
  writeFileSync(join(live, 'which'), 'first');
  await exec('sync', ['--file-system', live]);
  const spec = await storeImage(join(scratch, 'store'), source.image);
  writeFileSync(join(live, 'which'), 'second');
  await exec('sync', ['--file-system', live]);
  const [, major, minor] = /^(\d+)\.(\d+)/.exec(release())!;
  if (Number(major) * 1000 + Number(minor) < 6007) {
    const hint = /another btrfs with the same UUID \([0-9a-f-]{36}\) is mounted/;
    await assert.rejects(mount(t, spec, 'btrfs'), { code: 'MOUNT_FAILED', message: hint });
    return;
  }
  const record = await mount(t, spec, 'btrfs');
  const shown = await Promise.all(
    [record.directory, live].map((each) => readFile(join(each, 'which'), 'utf8')),
  );
  assert.deepEqual(shown, ['first', 'second']);
  const to = join(scratch, 'btrfs-files');
  const subject = { point: '', device: 'btrfs' };
  await restoreFiles({ image: spec, subject, sectorSize: 512, runDirectory, paths: ['/which'], to });
  assert.equal(await readFile(join(to, 'which'), 'utf8'), 'first');
  await unmountImage(runDirectory, record.directory);
});

test('over mount points, places of devices and the vault itself only with an explicit option', async (t) => {
  const place = join(scratch, 'a-mount-point');
  mkdirSync(place);
  await exec('mount', ['-t', 'tmpfs', 'none', place]);
  try {
    const common = { image: ext4.spec, subject: { point: '', device: 'd' }, sectorSize: 512, runDirectory };
    const refused = (directory: string, why: RegExp, more: object = {}): Promise<void> =>
      assert.rejects(mountImage({ ...common, directory, ...more }), { code: 'FILE_EXISTS', message: why });
    await refused(place, /it is a mount point \(tmpfs none\)/);
    await refused(join(scratch, 'place'), /is the mount point of a device/, {
      knownPlaces: [join(scratch, 'place')],
    });
    await refused(join(scratch, 'store/vault/packs'), /the point is read from/);
    await refused(runDirectory, /run directory/, { over: true });
    assert.ok(!existsSync(join(scratch, 'place')));
    assert.deepEqual(readdirSync(join(runDirectory, 'mounts')), []);
    const record = await mount(t, ext4.spec, 'a-mount-point', { over: true });
    await unmountImage(runDirectory, record.directory);
    await assertOnlyMount(place);

    // Its server still sees the files that the mount hides, and the cleanup finds everything.
    const vault = join(scratch, 'store/vault');
    const over = await mount(t, ext4.spec, 'store/vault', { over: true });
    writeFileSync('/proc/sys/vm/drop_caches', '3');
    assert.equal(await listTree(vault), ext4.listing);
    await unmountImage(runDirectory, vault);
    assert.ok(existsSync(join(vault, 'vault.json')));
    await assertNothingLeft(over, place);
  } finally {
    await umount(place);
  }
});

async function assertOnlyMount(place: string): Promise<void> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n');
  assert.deepEqual(
    lines.filter((line) => line.includes(scratch)).map((line) => line.split(' ')[4]),
    [place],
  );
}

test('an image that requests a panic on errors is mounted so that the machine continues', async (t) => {
  const image = join(scratch, 'panic.img');
  await cp(ext4.image, image);
  await exec('tune2fs', ['-e', 'panic', '-E', 'mount_opts=errors=panic', image]);
  const record = await mount(t, { kind: 'file', path: image }, 'panic');
  const mounted = (await readFile('/proc/self/mountinfo', 'utf8'))
    .split('\n')
    .find((line) => line.includes(` ${record.directory} `));
  assert.match(mounted ?? '', / ro,nosuid,nodev,.* ro,.*errors=continue/);
  await unmountImage(runDirectory, record.directory);
  rmSync(image);
});

test('verifications find a whole point whole, and name the losses of a damaged one', async () => {
  const subject = { point: '', device: 'xfs' };
  const common = { image: xfs.spec, subject, sectorSize: 512, runDirectory };
  for (const level of ['reachable', 'read', 'filesystem'] as const) {
    const { outcome, coverage, problems } = await verifyImage({ ...common, level });
    assert.deepEqual([level, outcome, coverage, problems], [level, 'whole', 1, []]);
  }
  const sampled = await verifyImage({ ...common, level: 'read', sample: 0.1 });
  assert.ok(sampled.coverage > 0.05 && sampled.coverage < 0.2, String(sampled.coverage));

  const broken = join(scratch, 'broken');
  const damaged = await storeImage(broken, ext4.image);
  const packs = (await exec('find', [join(broken, 'vault/packs'), '-type', 'f', '-size', '+1M'])).stdout;
  const [pack = ''] = packs.trim().split('\n');
  const handle = await open(pack, 'r+');
  await handle.write(Buffer.from('damage'), 0, 6, 100 * KiB);
  await handle.close();
  const flipped = await verifyImage({ ...common, image: damaged, level: 'read' });
  assert.equal(flipped.outcome, 'damaged');
  assert.deepEqual(
    flipped.lost.map(({ length }) => length),
    [64 * KiB],
  );
  assert.equal((await verifyImage({ ...common, image: damaged, level: 'reachable' })).outcome, 'whole');
  rmSync(pack);
  const gone = await verifyImage({ ...common, image: damaged, level: 'reachable' });
  assert.equal(gone.outcome, 'damaged');
  assert.ok(gone.lost.length > 0);

  // The filesystem's own checker sees an error that the vault cannot see, since it was stored in this state.
  const bad = join(scratch, 'bad-filesystem');
  await cp(ext4.image, bad);
  await exec('debugfs', ['-w', '-R', 'clri <12>', bad]);
  const wrong = await verifyImage({ ...common, image: { kind: 'file', path: bad }, level: 'filesystem' });
  assert.equal(wrong.outcome, 'damaged');
  assert.match(wrong.problems.join('\n'), /ext4: /);
});

test('an export for other programs: all data, holes, and writes that are discarded', async (t) => {
  const socket = join(scratch, 'export.sock');
  const overlays = join(scratch, 'overlays');
  mkdirSync(overlays);
  const server = await exportImage({
    image: xfs.spec,
    name: 'point',
    listen: { kind: 'unix', path: socket },
    overlay: { directory: overlays },
    log: silentLog(),
  });
  let running = true;
  atEnd(t, async () => {
    if (running) await server.stop();
  });
  const copy = join(scratch, 'copied');
  writeFileSync(copy, '');
  await truncate(copy, xfs.spec.source.size);
  const uri = `nbd+unix:///point?socket=${socket}`;
  await exec('nbdcopy', ['--connections=4', uri, copy]);
  await exec('cmp', [xfs.image, copy]);
  const map = (await exec('nbdinfo', ['--map', '--totals', uri])).stdout;
  assert.match(map, /hole,zero/);

  await exec('qemu-io', ['-f', 'raw', uri, '-c', 'write -P 7 100000 300000', '-c', 'write -z 1M 64k']);
  await exec('qemu-io', ['-f', 'raw', uri, '-c', 'read -P 7 100000 300000', '-c', 'read -P 0 1M 64k']);
  assert.deepEqual(readdirSync(overlays), []);
  await server.stop();
  running = false;
  assert.ok(!existsSync(socket));

  const tcp = await exportImage({
    image: xfs.spec,
    name: 'point',
    listen: { kind: 'tcp', host: '127.0.0.1', port: 0 },
    log: silentLog(),
  });
  try {
    const info = (await exec('nbdinfo', ['--json', tcp.uri])).stdout;
    assert.match(info, /"is_read_only": true/);
    assert.match(info, /"can_multi_conn": true/);
    await exec('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', xfs.image, tcp.uri]);
  } finally {
    await tcp.stop();
  }
});
