/**
 * Proves that a recovery point is restored completely to a device, a file and an NBD server. cmp compares
 * used blocks, the filesystem's own checker runs, and a foreign listing shows every file with its metadata.
 *
 * Ranges of a nearly right device that already match are not written. A destination that is in use or holds
 * something else is refused. An interrupted restore resumes.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { AgentError } from '../../src/base/errors.ts';
import { parseDestination } from '../../src/restore/target/acquire-destination.ts';
import {
  type RestoreOptions,
  type RestoreResult,
  restoreToTarget,
} from '../../src/restore/target/to-target.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { type FilesystemName, assertSameUsed, assertWhole, oracleUsed } from '../helpers/image-proof.ts';
import { attachLoop, detachLoop, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { listTree, makeMetadataTree } from '../helpers/metadata-tree.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { startQemuNbd } from '../helpers/qemu-nbd.ts';
import { storeImage } from '../helpers/restore-point.ts';
import type { PointImageSpec } from '../../src/restore/image/point-image.ts';

const whole = { after };
const scratch = mkdtempSync(join(tmpdir(), 'restore-device-'));
atEnd(whole, () => rmSync(scratch, { recursive: true }));

interface Source {
  readonly type: FilesystemName;
  readonly image: string;
  readonly size: number;
  readonly spec: PointImageSpec;
  readonly listing: string;
}

async function fillWithJunk(path: string, size: number): Promise<void> {
  const junk = Buffer.alloc(8 * MiB, 0xaa);
  const handle = await open(path, path.startsWith('/dev/') ? 'r+' : 'w');
  for (let at = 0; at < size; at += junk.length) await handle.write(junk, 0, junk.length, at);
  await handle.sync();
  await handle.close();
}

/** Makes a filesystem with files, and stores its used blocks in a vault like a backup. */
async function makeSource(type: FilesystemName, size: number): Promise<Source> {
  const image = join(scratch, `${type}.img`);
  // Unused blocks are not zero.
  await fillWithJunk(image, size);
  await exec(
    `mkfs.${type}`,
    type === 'xfs' ? ['-q', '-f', '-K', image] : ['-q', '-F', '-E', 'nodiscard', image],
  );
  const device = await attachLoop(image);
  const mountPoint = join(scratch, `${type}-mounted`);
  let listing;
  try {
    await mountDevice(device, mountPoint);
    try {
      await makeMetadataTree(mountPoint);
      listing = await listTree(mountPoint);
    } finally {
      await unmount(mountPoint);
    }
  } finally {
    await detachLoop(device);
  }
  const used = await oracleUsed(type, image, size);
  const chunks = new Set<number>();
  for (const { offset, length } of used)
    for (let at = Math.floor(offset / (64 * KiB)); at * 64 * KiB < offset + length; at++) chunks.add(at);
  const spec = await storeImage(join(scratch, 'store'), image, (offset) => chunks.has(offset / (64 * KiB)));
  return { type, image, size, spec, listing };
}

const ext4 = await makeSource('ext4', 192 * MiB);
const xfs = await makeSource('xfs', 320 * MiB);

function restore(source: Source, to: string, options: Partial<RestoreOptions> = {}): Promise<RestoreResult> {
  return restoreToTarget({
    image: source.spec,
    imageId: source.type,
    sectorSize: 512,
    to: parseDestination(to),
    ...options,
  });
}

async function assertRestored(source: Source, path: string): Promise<void> {
  await assertSameUsed(source.type, source.image, path, source.size);
  await assertWhole(source.type, path);
  const device = path.startsWith('/dev/') ? path : await attachLoop(path, { readOnly: true });
  const mountPoint = join(scratch, 'restored');
  try {
    await mountDevice(device, mountPoint, source.type === 'xfs' ? 'ro,norecovery,nouuid' : 'ro,noload');
    try {
      assert.equal(await listTree(mountPoint), source.listing);
    } finally {
      await unmount(mountPoint);
    }
  } finally {
    if (device !== path) await detachLoop(device);
  }
}

function refusedWith(code: AgentError['code'], message: RegExp): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof AgentError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    assert.ok((error.hint ?? '').length > 10 || code === 'CANCELLED', `no next step: ${error.message}`);
    return true;
  };
}

for (const source of [ext4, xfs])
  test(`${source.type} onto a device with other content, and again over the right one`, async (t) => {
    const disk = await makeLoop(t, { size: source.size });
    await fillWithJunk(disk.device, source.size);
    await assert.rejects(
      restore(source, disk.device),
      refusedWith('TARGET_OCCUPIED', /holds data of an unknown kind/),
    );
    const first = await restore(source, disk.device, { force: disk.device });
    assert.deepEqual([first.lost, first.warnings], [[], []]);
    assert.ok(first.verified >= first.written && first.written > 2 * MiB);
    await assertRestored(source, disk.device);

    await assert.rejects(
      restore(source, disk.device),
      refusedWith('TARGET_OCCUPIED', new RegExp(`holds ${source.type} \\(UUID [-0-9a-f]{36}\\)`)),
    );
    // Changes one byte of the superblock's UUID, and one in the middle of a file.
    const handle = await open(disk.device, 'r+');
    await handle.write(Buffer.from('X'), 0, 1, 2000);
    await handle.close();
    const again = await restore(source, disk.device, { force: disk.device });
    assert.ok(again.written > 0 && again.written <= 64 * KiB, String(again.written));
    assert.ok(again.equal > 4 * MiB);
    await assertRestored(source, disk.device);
  });

test('into a new file, which takes only the room of its content', async () => {
  const path = join(scratch, 'new-file');
  const phases = new Set<string>();
  const result = await restore(ext4, path, { onProgress: ({ phase }) => phases.add(phase) });
  assert.deepEqual([...phases], ['checking', 'restoring', 'verifying']);
  assert.equal(statSync(path).size, ext4.size);
  assert.ok(statSync(path).blocks * 512 <= result.written + MiB);
  await assertRestored(ext4, path);
  await assert.rejects(
    restore(xfs, path),
    refusedWith('TARGET_TOO_SMALL', /has 201326592 bytes .* has 335544320/),
  );
  await assert.rejects(restore(ext4, path), refusedWith('TARGET_OCCUPIED', /holds ext4/));
  rmSync(path);
});

test('to NBD servers: one that takes a single client, and one that cannot zero', async (t) => {
  const image = join(scratch, 'served');
  writeFileSync(image, '');
  truncateSync(image, ext4.size);
  const qemu = await startQemuNbd(['--format=raw', image], { shared: 1 });
  atEnd(t, () => qemu.stop());
  const onto = await restore(ext4, qemu.uri);
  assert.ok(onto.verified >= onto.written);
  await qemu.stop();
  await assertRestored(ext4, image);

  // Zeros would have to be sent, so the filesystem shows which are needed. The rest stays as it was.
  await fillWithJunk(image, ext4.size);
  const nozero = await startNbdkit(['--filter=nozero', 'file', image, 'zeromode=none']);
  atEnd(t, () => nozero.stop());
  const sent = await restore(ext4, nozero.uri, { force: nozero.uri });
  assert.ok(sent.left > 50 * MiB, JSON.stringify(sent));
  assert.equal(sent.zeroed, 0);
  await nozero.stop();
  await assertRestored(ext4, image);
  assert.ok((await readFile(image)).includes(Buffer.alloc(4096, 0xaa)));
  rmSync(image);
});

test('a destination in use, too small, the source itself, or with other sectors is refused and unchanged', async (t) => {
  const mounted = await makeLoop(t, { size: 200 * MiB, filesystem: 'ext4', mount: true });
  await assert.rejects(
    restore(ext4, mounted.device, { force: mounted.device }),
    refusedWith('DEVICE_BUSY', new RegExp(`mounted on ${mounted.mountPoint!}`)),
  );
  const small = await makeLoop(t, { size: 191 * MiB });
  await assert.rejects(
    restore(ext4, small.device),
    refusedWith('TARGET_TOO_SMALL', /200278016 .* 201326592/),
  );
  const parts = await makeLoop(t, { size: 256 * MiB, partitions: 'label: gpt\nsize=32M, name=ESP\n,\n' });
  await assert.rejects(
    restore(ext4, parts.device),
    refusedWith('TARGET_OCCUPIED', /a partition table \(gpt\) with 2 partitions: 1 ESP of 32.00 MiB, 2 /),
  );
  await assert.rejects(
    restore(ext4, parts.device, { force: small.device }),
    refusedWith('BAD_USAGE', /is .* but the destination is/),
  );
  await exec('swapon', [(await makeSwap(parts.partition(2))).device]);
  try {
    await assert.rejects(
      restore(ext4, parts.device, { force: parts.device }),
      refusedWith('DEVICE_BUSY', /p2 is active swap/),
    );
  } finally {
    await exec('swapoff', [parts.partition(2)]);
  }
  const readOnly = await makeLoop(t, { size: 200 * MiB, readOnly: true });
  await assert.rejects(restore(ext4, readOnly.device), refusedWith('TARGET_READ_ONLY', /read-only/));
  const large = await makeLoop(t, { size: 640 * MiB, sectorSize: 4096 });
  await assert.rejects(
    restore(xfs, large.device),
    refusedWith('NOT_SUPPORTED', /sectors of 4096 bytes, .* with 512: xfs has sectors of 512 bytes/),
  );
  await assert.rejects(
    restore(ext4, large.device, { image: { kind: 'file', path: await withBlocks(1024) } }),
    refusedWith('NOT_SUPPORTED', /sectors of 4096 bytes, .* with 512: ext4 has blocks of 1024 bytes/),
  );
  // The kernel accepts a filesystem with blocks of 4096 bytes there.
  await restore(ext4, large.device, { image: { kind: 'file', path: await withBlocks(4096) } });
  const there = join(scratch, 'large-sectors');
  await mountDevice(large.device, there);
  await unmount(there);
  await assert.rejects(
    restore(ext4, join(scratch, 'store/vault/x')),
    refusedWith('SAME_DEVICE', /in the vault/),
  );
  assert.ok(!existsSync(join(scratch, 'store/vault/x')));
  await assert.rejects(
    restore(ext4, '/dev/nothing-there'),
    refusedWith('DEVICE_NOT_FOUND', /does not exist/),
  );
});

test('a vault that lies on the device is not restored over it', async (t) => {
  const disk = await makeLoop(t, { size: 200 * MiB, filesystem: 'ext4', mount: true });
  const inner = await makeLoop(t, { size: 200 * MiB, directory: scratch });
  const image = join(disk.mountPoint!, 'image');
  await exec('cp', ['--sparse=always', ext4.image, image], { allow: [1] });
  // A loop device over a file of that filesystem is another device. The device that holds the image is
  // mounted.
  await assert.rejects(
    restore(ext4, disk.device, { image: { kind: 'file', path: image } }),
    refusedWith('DEVICE_BUSY', /mounted/),
  );
  await assert.rejects(
    restore(ext4, inner.device, { image: { kind: 'file', path: inner.image }, force: inner.device }),
    refusedWith('SAME_DEVICE', /is the file behind/),
  );
});

test('an interrupted restore stops soon, and resumes when it is run again', async (t) => {
  const disk = await makeLoop(t, { size: xfs.size });
  const unfinishedDirectory = join(scratch, 'unfinished');
  await interrupt(xfs, disk.device, unfinishedDirectory);
  // The destination has content by now, which would be refused otherwise.
  const result = await restore(xfs, disk.device, { unfinishedDirectory });
  assert.ok(result.equal > 0, JSON.stringify(result));
  await assertRestored(xfs, disk.device);
  await assert.rejects(
    restore(xfs, disk.device, { unfinishedDirectory }),
    refusedWith('TARGET_OCCUPIED', /holds xfs/),
  );
});

test('an interrupted restore does not resume over data that was written since', async (t) => {
  const disk = await makeLoop(t, { size: ext4.size });
  const unfinishedDirectory = join(scratch, 'reused');
  const again = (): Promise<RestoreResult> => restore(ext4, disk.device, { unfinishedDirectory });
  const forgetRanges = (): void => {
    for (const name of readdirSync(unfinishedDirectory).filter((each) => each.endsWith('.ranges')))
      truncateSync(join(unfinishedDirectory, name), 0);
  };
  // The restore was killed before anything was recorded, but its own beginning is recognised.
  await interrupt(ext4, disk.device, unfinishedDirectory);
  forgetRanges();
  await again();
  await assertRestored(ext4, disk.device);

  await fillWithJunk(disk.device, ext4.size);
  await interrupt(ext4, disk.device, unfinishedDirectory, { force: disk.device });
  await exec('mkfs.ext4', ['-q', '-F', '-L', 'PRECIOUS', disk.device]);
  const mountPoint = join(scratch, 'reused-mounted');
  await mountDevice(disk.device, mountPoint);
  writeFileSync(join(mountPoint, 'thesis'), 'years of work');
  await unmount(mountPoint);
  await assert.rejects(
    again(),
    refusedWith(
      'TARGET_OCCUPIED',
      /ext4 "PRECIOUS".*interrupted, and then the \d+ bytes at \d+ were changed/,
    ),
  );
  await mountDevice(disk.device, mountPoint);
  assert.equal(await readFile(join(mountPoint, 'thesis'), 'utf8'), 'years of work');
  await unmount(mountPoint);

  forgetRanges();
  await assert.rejects(again(), refusedWith('TARGET_OCCUPIED', /before any range was recorded/));

  // If its name is given again, the restore starts from the beginning. One changed byte of its data is enough
  // for a refusal.
  await interrupt(ext4, disk.device, unfinishedDirectory, { force: disk.device });
  const data = Buffer.alloc(1, 0x5a);
  const handle = await open(disk.device, 'r+');
  const { buffer: was } = await handle.read(Buffer.alloc(1), 0, 1, 5000);
  data[0]! ^= was[0]!;
  await handle.write(data, 0, 1, 5000);
  await handle.sync();
  await assert.rejects(again(), refusedWith('TARGET_OCCUPIED', /were changed/));
  await handle.write(was, 0, 1, 5000);
  await handle.sync();
  await handle.close();
  assert.ok((await again()).equal > 0);
  await assertRestored(ext4, disk.device);

  const file = join(scratch, 'reused.img');
  await interrupt(ext4, file, unfinishedDirectory);
  writeFileSync(file, 'something else', { flag: 'r+' });
  await assert.rejects(
    restore(ext4, file, { unfinishedDirectory }),
    refusedWith('TARGET_OCCUPIED', /were changed/),
  );
  assert.equal((await readFile(file)).toString('latin1', 0, 14), 'something else');
  rmSync(file);
});

/** Makes an ext4 with blocks of this many bytes. */
async function withBlocks(bytes: number): Promise<string> {
  const path = join(scratch, `blocks-${bytes}.img`);
  writeFileSync(path, '');
  truncateSync(path, 16 * MiB);
  await exec('mkfs.ext4', ['-q', '-F', '-b', String(bytes), path]);
  return path;
}

/** Restores until something was written, and stops then. */
async function interrupt(
  source: Source,
  to: string,
  unfinishedDirectory: string,
  options: Partial<RestoreOptions> = {},
): Promise<void> {
  const abort = new AbortController();
  await assert.rejects(
    restore(source, to, {
      ...options,
      unfinishedDirectory,
      signal: abort.signal,
      threads: 1,
      onProgress: ({ written }) => {
        if (written > 0) abort.abort();
      },
    }),
    refusedWith('CANCELLED', /./),
  );
}

async function makeSwap(device: string): Promise<{ device: string }> {
  await exec('mkswap', ['--quiet', device]);
  return { device };
}
