/**
 * Proofs of an image by programs that are not ours: cmp over the ranges that dumpe2fs or xfs_db call used,
 * e2fsck and xfs_repair without recovery, and a read-only mount compared by diff.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { complement, type Extent, merged, totalLength } from '../../src/base/extents.ts';
import { exec } from './exec.ts';
import { attachLoop, detachLoop, mountDevice, unmount } from './loop.ts';
import { dumpe2fsUsed } from './used-extents.ts';
import { xfsDb } from './xfs-oracle.ts';

export type FilesystemName = 'ext2' | 'ext3' | 'ext4' | 'xfs';

/** The used ranges of an image file or an idle device by dumpe2fs or xfs_db. */
export async function oracleUsed(type: FilesystemName, path: string, size: number): Promise<Extent[]> {
  if (type !== 'xfs') return dumpe2fsUsed(path, size);
  return [...complement(merged((await xfsDb(path)).free), size)];
}

/** Asserts by cmp that two files or devices hold the same in every range. Returns the bytes compared. */
export async function assertSameRanges(
  one: string,
  other: string,
  ranges: readonly Extent[],
): Promise<number> {
  const script = [
    'a=$1 b=$2',
    'while read -r at len; do',
    '  cmp -i "$at" -n "$len" -- "$a" "$b" || exit 1',
    'done',
  ];
  const input = ranges.map(({ offset, length }) => `${offset} ${length}\n`).join('');
  const { code, stdout, stderr } = await exec('sh', ['-c', script.join('\n'), 'sh', one, other], {
    input,
    allow: [1],
    timeoutMs: 120_000,
  });
  assert.equal(code, 0, `${stdout}${stderr}`);
  return totalLength(ranges);
}

/** Used blocks of the reference equal those of the image. Returns the bytes compared. */
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

/** The filesystem in the image is whole without any recovery: the journal or log is clean. */
export async function assertWhole(type: FilesystemName, image: string): Promise<void> {
  if (type === 'xfs') {
    const { code, stdout, stderr } = await exec('xfs_repair', ['-n', image], { allow: [1, 2, 3, 4] });
    const text = stdout + stderr;
    assert.equal(code, 0, text);
    // With a dirty log it says that "valuable metadata changes in a log" are ignored.
    assert.doesNotMatch(text, /ALERT|valuable metadata|would have|dirty/i);
    return;
  }
  const { code, stdout, stderr } = await exec('e2fsck', ['-fn', image], { allow: [1, 2, 4, 8, 12] });
  const text = stdout + stderr;
  assert.equal(code, 0, text);
  assert.doesNotMatch(text, /recover|WARNING|<y>|\? no/i);
  const features = /^Filesystem features:\s+(.*)$/m.exec((await exec('dumpe2fs', ['-h', image])).stdout)?.[1];
  assert.doesNotMatch(features ?? '', /needs_recovery/);
}

/** Mounts the image read-only, without recovery, and compares all files with `directory` by diff. */
export async function assertSameFiles(
  type: FilesystemName,
  image: string,
  directory: string,
  scratch: string,
): Promise<void> {
  const device = await attachLoop(image, { readOnly: true });
  try {
    const mountPoint = join(scratch, 'image-mounted');
    await mountDevice(device, mountPoint, type === 'xfs' ? 'ro,norecovery,nouuid' : 'ro,noload');
    try {
      const { code, stdout, stderr } = await exec('diff', ['-r', '--no-dereference', directory, mountPoint], {
        allow: [1, 2],
      });
      assert.equal(code, 0, `${stdout}${stderr}`.slice(0, 2000));
    } finally {
      await unmount(mountPoint);
    }
  } finally {
    await detachLoop(device);
  }
}
