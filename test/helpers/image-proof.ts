/**
 * Proves an image by foreign programs: the same bytes in the ranges that dumpe2fs or xfs_db call used, e2fsck
 * and xfs_repair without recovery, and a read-only mount compared by diff.
 */
import assert from 'node:assert/strict';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { MiB } from '../../src/base/bytes.ts';
import { complement, type Extent, merged, totalLength } from '../../src/base/extents.ts';
import { exec } from './exec.ts';
import { attachLoop, detachLoop, mountDevice, unmount } from './loop.ts';
import { dumpe2fsUsed } from './used-extents.ts';
import { xfsDb } from './xfs-oracle.ts';

export type FilesystemName = 'ext2' | 'ext3' | 'ext4' | 'xfs';

/** Returns the used ranges of an image file or an idle device, by dumpe2fs or xfs_db. */
export async function oracleUsed(type: FilesystemName, path: string, size: number): Promise<Extent[]> {
  if (type !== 'xfs') return dumpe2fsUsed(path, size);
  return [...complement(merged((await xfsDb(path)).free), size)];
}

/**
 * Asserts that two files or devices hold the same bytes in every range. Returns the number of bytes compared.
 */
export async function assertSameRanges(
  one: string,
  other: string,
  ranges: readonly Extent[],
): Promise<number> {
  // A process of cmp for each range would take longer than the rest of most tests.
  const files = [await open(one), await open(other)] as const;
  try {
    const [ours, theirs] = [Buffer.alloc(MiB), Buffer.alloc(MiB)];
    for (const range of ranges)
      for (let offset = range.offset; offset < range.offset + range.length; offset += MiB) {
        const length = Math.min(MiB, range.offset + range.length - offset);
        const read = [
          await files[0].read(ours, 0, length, offset),
          await files[1].read(theirs, 0, length, offset),
        ];
        for (const { bytesRead } of read)
          assert.equal(bytesRead, length, `${one} or ${other} ends before byte ${offset + length}`);
        if (ours.subarray(0, length).equals(theirs.subarray(0, length))) continue;
        const differs = ours.subarray(0, length).findIndex((byte, index) => byte !== theirs[index]);
        assert.fail(`${one} and ${other} differ at byte ${offset + differs}`);
      }
  } finally {
    for (const file of files) await file.close();
  }
  return totalLength(ranges);
}

/**
 * Asserts that the used blocks of the reference equal those of the image. Returns the number of bytes
 * compared.
 */
export async function assertSameUsed(
  type: FilesystemName,
  reference: string,
  image: string,
  size: number,
): Promise<number> {
  const used = await oracleUsed(type, reference, size);
  const bytes = totalLength(used);
  assert.ok(bytes > 0 && bytes <= size);
  return assertSameRanges(reference, image, used);
}

/**
 * Asserts that the filesystem in the image is whole without any recovery. `frozen`: the image was taken in a
 * freeze. Such an image has one transaction in the log of XFS, which holds only the superblock
 * (docs/formats/xfs.md).
 */
export async function assertWhole(
  type: FilesystemName,
  image: string,
  state: 'idle' | 'frozen' = 'idle',
): Promise<void> {
  if (type === 'xfs') return assertWholeXfs(image, state);
  const { code, stdout, stderr } = await exec('e2fsck', ['-fn', image], { allow: [1, 2, 4, 8, 12] });
  // A message that something could be stored more tightly is not an error.
  const text = (stdout + stderr).replaceAll(/^.* Optimize\? no$/gm, '');
  assert.equal(code, 0, text);
  assert.doesNotMatch(text, /recover|WARNING|<y>|\? no/i);
  const features = /^Filesystem features:\s+(.*)$/m.exec((await exec('dumpe2fs', ['-h', image])).stdout)?.[1];
  assert.doesNotMatch(features ?? '', /needs_recovery/);
}

/** The output of xfs_repair for a filesystem without errors. */
const repairTalk =
  /^(Phase \d|\s+- |No modify flag set|Cannot get host|Repair may fail|the image and the host|$)/;
/** The output for a log that is not empty, and for the superblock in that log. */
const frozenTalk =
  /^(ALERT: The filesystem has|ignored because|which may be resolved|sb_fdblocks \d+, counted \d+$)/;

async function assertWholeXfs(image: string, state: 'idle' | 'frozen'): Promise<void> {
  const repair = await exec('xfs_repair', ['-n', image], { allow: [1] });
  const complaints = `${repair.stdout}${repair.stderr}`
    .split('\n')
    .filter((line) => !repairTalk.test(line) && !(state === 'frozen' && frozenTalk.test(line)));
  assert.deepEqual(complaints, []);
  const log = (await exec('xfs_logprint', ['-t', image])).stdout;
  const buffers = [...log.matchAll(/^\s*BUF:\s+#regs.*blkno:(\S+)/gm)].map(([, block]) => block);
  const items = [...log.matchAll(/^TRANS: .*#items:(\d+)/gm)].map(([, count]) => Number(count));
  const expected = state === 'frozen' ? ['0x0'] : [];
  assert.deepEqual([...new Set(buffers)], buffers.length > 0 ? expected : [], log);
  // The items are the buffer, and the log's own unmount or commit item.
  assert.ok(
    items.every((count) => count <= 2),
    log,
  );
  if (state === 'idle') assert.equal(repair.code, 0);
}

/** Mounts the image read-only and without recovery on `mountPoint` while `look` runs. */
export async function withImageMounted(
  type: FilesystemName,
  image: string,
  mountPoint: string,
  look: () => Promise<void>,
): Promise<void> {
  const device = await attachLoop(image, { readOnly: true });
  try {
    await mountDevice(device, mountPoint, type === 'xfs' ? 'ro,norecovery,nouuid' : 'ro,noload');
    try {
      await look();
    } finally {
      await unmount(mountPoint);
    }
  } finally {
    await detachLoop(device);
  }
}

/** Mounts the image and compares all its files with `directory` by diff. */
export async function assertSameFiles(
  type: FilesystemName,
  image: string,
  directory: string,
  scratch: string,
): Promise<void> {
  const mountPoint = join(scratch, 'image-mounted');
  await withImageMounted(type, image, mountPoint, async () => {
    const { code, stdout, stderr } = await exec('diff', ['-r', '--no-dereference', directory, mountPoint], {
      allow: [1, 2],
    });
    assert.equal(code, 0, `${stdout}${stderr}`.slice(0, 2000));
  });
}
