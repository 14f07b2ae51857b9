/**
 * Proves backups into a vault. Each point equals the frozen device bit for bit in all used blocks, for every
 * chunk size. An incremental reads and stores only changes. A killed job costs nothing. Forgotten points are
 * not used as a base. Machines cloned from one image share their common data.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import {
  closeSync,
  copyFileSync,
  mkdirSync,
  openSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { KiB, MiB } from '../../src/base/bytes.ts';
import type { DeviceStatus, JobStatus } from '../../src/api/job-status.ts';
import { deletePoint } from '../../src/vault/points/points.ts';
import { assertNothingLeft, backUp, backUpWell, scratchFor, scriptIn } from '../helpers/backup.ts';
import { dattocli, waitFor } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { type FilesystemName, assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { attachLoop, detachLoop, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { seeded } from '../helpers/random.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';
import { type TestDirectoryVault, vaultFor } from '../helpers/vault.ts';

const whole = { after };
const scratch = scratchFor(whole, { memory: true });
const daemon = await trackedDaemonFor(whole);

/** Makes a hook that copies the device while it is frozen, and the options with which a job runs it. */
async function reference(device: string, name: string): Promise<{ path: string; args: string[] }> {
  const path = join(scratch, `reference-${name}`);
  const hook = await scriptIn(scratch, `copy-${name}`, [
    `dd if=${device} of=${path} bs=1M iflag=direct conv=sparse status=none`,
  ]);
  return { path, args: ['--frozen-hook', hook, '--max-freeze', '20s'] };
}

async function assertLastPoint(
  vault: TestDirectoryVault,
  type: FilesystemName,
  status: DeviceStatus,
  referencePath: string,
): Promise<void> {
  const point = (await vault.points()).at(-1)!;
  assert.equal(point.id, status.point);
  const device = point.devices.find(({ path }) => path === status.device)!;
  const image = join(scratch, 'image');
  await vault.dump(device, image);
  await assertSameUsed(type, referencePath, image, device.size);
  await assertWhole(type, image, 'frozen');
  rmSync(image);
}

function only(status: JobStatus): DeviceStatus {
  assert.equal(status.devices.length, 1);
  return status.devices[0]!;
}

for (const [type, size, chunkSize] of [
  ['ext4', 160 * MiB, 64 * KiB],
  ['xfs', 320 * MiB, 16 * KiB],
  ['ext4', 161 * MiB + 4 * KiB, 256 * KiB],
] as const)
  test(`${type} in chunks of ${chunkSize / KiB} KiB: a full, incrementals and a differential equal the frozen device`, async (t) => {
    const vault = await vaultFor(t, daemon.stateDirectory, { chunkSize, packSize: MiB });
    const disk = await makeLoop(t, { size, filesystem: type, mount: true });
    const mountPoint = disk.mountPoint!;
    await fillWithFiles(mountPoint, 40 * MiB);
    const { path, args } = await reference(disk.device, `${type}-${chunkSize}`);
    const run = async (kind: '--full' | '--incremental' | '--differential', ...more: string[]) => {
      const status = only(
        await backUpWell(daemon, ['--device', disk.device, '--target', vault.target, ...args, ...more], kind),
      );
      assert.equal(`--${status.kind}`, kind);
      await assertLastPoint(vault, type, status, path);
      return status;
    };
    const full = await run('--full');
    assert.ok(full.bytes_stored! > 10 * MiB);

    writeFileSync(join(mountPoint, 'new'), randomBytes(3 * MiB));
    rmSync(join(mountPoint, 'large-0'));
    const second = await run('--incremental');
    assert.equal(second.tracker, daemon.tracker);
    assert.ok(second.bytes_sent >= 3 * MiB && second.bytes_sent < 12 * MiB, `${second.bytes_sent} were sent`);

    mkdirSync(join(mountPoint, 'again'));
    writeFileSync(join(mountPoint, 'again', 'file'), randomBytes(2 * MiB));
    await run('--incremental');
    writeFileSync(join(mountPoint, 'untracked'), randomBytes(MiB));
    const compared = await run('--differential', '--tracker', 'none');
    assert.ok(compared.bytes_sent < 12 * MiB, `${compared.bytes_sent} were sent`);
    assert.equal((await vault.points()).length, 4);
    await assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [mountPoint] });
    const files = readdirSync(join(daemon.stateDirectory, 'chains'), { recursive: true, encoding: 'utf8' });
    assert.ok(
      files.some((name) => name.endsWith('/pending')) && !files.some((name) => /\/names$/.test(name)),
    );
  });

test('two devices of a job are one point, at one instant', async (t) => {
  const vault = await vaultFor(t, daemon.stateDirectory);
  const disks = [
    await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true }),
    await makeLoop(t, { size: 320 * MiB, filesystem: 'xfs', mount: true }),
  ];
  for (const { mountPoint } of disks) await fillWithFiles(mountPoint!, 8 * MiB);
  const pairs = disks.flatMap(({ device }) => ['--device', device, '--target', vault.target]);
  const paths = disks.map((_, i) => join(scratch, `reference-${i}`));
  const hook = await scriptIn(
    scratch,
    'copy-both',
    disks.map(
      ({ device }, i) => `dd if=${device} of=${paths[i]!} bs=1M iflag=direct conv=sparse status=none`,
    ),
  );
  const status = await backUpWell(daemon, [...pairs, '--frozen-hook', hook, '--max-freeze', '20s']);
  assert.equal((await vault.points()).length, 1);
  for (const [i, type] of (['ext4', 'xfs'] as const).entries())
    await assertLastPoint(vault, type, status.devices[i]!, paths[i]!);
});

test('killed in the middle of an incremental: the next one is an incremental, and right', async (t) => {
  const vault = await vaultFor(t, daemon.stateDirectory, { packSize: MiB });
  const disk = await makeLoop(t, { size: 200 * MiB, filesystem: 'ext4', mount: true });
  const mountPoint = disk.mountPoint!;
  await fillWithFiles(mountPoint, 16 * MiB);
  const { path, args } = await reference(disk.device, 'killed');
  const pair = ['--device', disk.device, '--target', vault.target];
  await backUpWell(daemon, pair);
  writeFileSync(join(mountPoint, 'new'), randomBytes(48 * MiB));
  const { stdout } = await dattocli(['startbackup', '--incremental', '--rate', '8M', ...pair], daemon);
  const uuid = stdout.trim();
  const packsBefore = await countFiles(join(vault.directory, 'packs'));
  await waitFor(
    'packs of the job in the vault',
    60_000,
    async () => (await countFiles(join(vault.directory, 'packs'))) > packsBefore + 2,
  );
  await dattocli(['stopbackup', uuid], daemon);
  assert.equal((await vault.points()).length, 1, 'a job that was stopped made a point');
  const status = only(await backUpWell(daemon, [...pair, ...args], '--incremental'));
  assert.equal(status.kind, 'incremental');
  assert.ok(status.bytes_sent >= 48 * MiB);
  assert.ok(
    status.bytes_stored! < 47 * MiB,
    `${status.bytes_stored} bytes were stored although a part of them was there`,
  );
  await assertLastPoint(vault, 'ext4', status, path);
});

test('the base point is forgotten: a full with the reason, and it is right', async (t) => {
  const vault = await vaultFor(t, daemon.stateDirectory);
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
  await fillWithFiles(disk.mountPoint!, 8 * MiB);
  const { path, args } = await reference(disk.device, 'forgotten');
  const pair = ['--device', disk.device, '--target', vault.target];
  const first = only(await backUpWell(daemon, pair));
  const opened = await vault.open();
  await deletePoint(opened.vault, first.point!);
  await opened.vault.store.close();
  const { status } = await backUp(daemon, [...pair, ...args], '--incremental');
  assert.equal(only(status).kind, 'full');
  assert.match(status.warnings[0]?.message ?? '', new RegExp(`recovery point ${first.point!} .* is gone`));
  await assertLastPoint(vault, 'ext4', only(status), path);
});

test('4 KiB writes over 1 % of a device store no more than the chunks they touch', async (t) => {
  const vault = await vaultFor(t, daemon.stateDirectory);
  const size = 512 * MiB;
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  const file = join(disk.mountPoint!, 'file');
  writeFileSync(file, randomBytes(256 * MiB));
  const pair = ['--device', disk.device, '--target', vault.target];
  await backUpWell(daemon, pair);
  const before = await bytesOf(vault.directory);
  const touched = new Set<number>();
  const random = seeded(7);
  const fd = openSync(file, 'r+');
  for (let i = 0; i < size / 100 / 4096; i++) {
    const block = Math.floor(random() * (256 * (MiB / 4096)));
    touched.add(Math.floor(block / 16));
    writeSync(fd, randomBytes(4096), 0, 4096, block * 4096);
  }
  closeSync(fd);
  await exec('sync', ['-f', disk.mountPoint!]);
  const status = only(await backUpWell(daemon, pair, '--incremental'));
  const grown = (await bytesOf(vault.directory)) - before;
  t.diagnostic(`${touched.size} chunks touched, ${status.bytes_sent} bytes sent, the vault grew by ${grown}`);
  // If the file's blocks do not begin at a chunk, a place may touch two. Metadata and pages come on top.
  assert.ok(status.bytes_sent <= touched.size * 64 * KiB + 4 * MiB, `${status.bytes_sent} bytes sent`);
  assert.ok(grown <= touched.size * 64 * KiB * 1.01 + 5 * MiB, `the vault grew by ${grown}`);
});

test('ten machines cloned from one image take at most 1.1 times the space of one', async (t) => {
  const vault = await vaultFor(t, daemon.stateDirectory);
  const disk = await makeLoop(t, { size: 96 * MiB, filesystem: 'ext4' });
  const mountPoint = join(disk.directory, 'mnt');
  await mountDevice(disk.device, mountPoint);
  await fillWithFiles(mountPoint, 24 * MiB);
  await unmount(mountPoint);
  // tune2fs changes no UUID if the last check is older than the last mount, even by a second.
  await exec('e2fsck', ['-fp', disk.device], { allow: [1] });
  let one = 0;
  for (let machine = 0; machine < 10; machine++) {
    const image = join(scratch, 'clone');
    copyFileSync(disk.image, image);
    const device = await attachLoop(image);
    try {
      await exec('tune2fs', ['-U', 'random', device]);
      await exec('sh', ['-c', `echo machine ${machine} | debugfs -w -R 'write /dev/stdin name' ${device}`]);
      await backUpWell(daemon, ['--device', device, '--target', vault.target]);
    } finally {
      await detachLoop(device);
    }
    if (machine === 0) one = await bytesOf(vault.directory);
  }
  const ten = await bytesOf(vault.directory);
  t.diagnostic(`one takes ${one} bytes, ten take ${ten} (${(ten / one).toFixed(3)} times)`);
  assert.equal((await vault.points()).length, 10);
  assert.ok(ten <= one * 1.1, `${ten} bytes of ${one}`);
});

test('a vault on the device itself, one without a key, and no vault at all are refused; nothing changes', async (t) => {
  const disk = await makeLoop(t, { size: 64 * MiB, filesystem: 'ext4', mount: true });
  const refused = async (target: string, code: RegExp) => {
    const { code: exit, stderr } = await dattocli(
      ['startbackup', '--full', '--json', '--device', disk.device, '--target', target],
      daemon,
    );
    assert.equal(exit, 1);
    assert.match(stderr, code);
  };
  const vault = await vaultFor(t, daemon.stateDirectory);
  const own = join(disk.mountPoint!, 'vault');
  await exec('cp', ['-a', vault.directory, own]);
  await refused(`vault:${own}`, /SAME_DEVICE/);
  const foreign = await vaultFor(t, scratchFor(t));
  await refused(foreign.target, /VAULT_NO_KEY/);
  await refused(`vault:${join(scratch, 'nothing')}`, /VAULT_NOT_FOUND/);
  assert.equal(statSync(join(scratch, 'nothing'), { throwIfNoEntry: false }), undefined);
  assert.deepEqual(await foreign.points(), []);
});

async function bytesOf(directory: string): Promise<number> {
  return Number.parseInt(
    (await exec('du', ['-s', '--apparent-size', '--block-size=1', directory])).stdout,
    10,
  );
}

async function countFiles(directory: string): Promise<number> {
  const { stdout } = await exec('find', [directory, '-type', 'f']);
  return stdout.split('\n').length - 1;
}
