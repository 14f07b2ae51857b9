/**
 * Proves the inherited offline tools. `in_use_sectors` prints at least everything that dumpe2fs, xfs_db and
 * partclone call used. `fsawarebdcopy` copies exactly that, between devices, files and NBD servers.
 */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { type Extent, totalLength } from '../../src/base/extents.ts';
import { scratchFor } from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { runProgram } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { fillDevice } from '../helpers/files.ts';
import { assertSameUsed, assertWhole, oracleUsed } from '../helpers/image-proof.ts';
import { makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { startNbdkit } from '../helpers/nbdkit.ts';
import { partcloneUsed, without } from '../helpers/used-extents.ts';

const whole = { after };
const scratch = scratchFor(whole);
const sizes = { ext4: 160 * MiB + 512, xfs: 320 * MiB + 4096 } as const;
const types = ['ext4', 'xfs'] as const;
const disks = {
  ext4: await makeLoop(whole, { size: sizes.ext4, filesystem: 'ext4' }),
  xfs: await makeLoop(whole, { size: sizes.xfs, filesystem: 'xfs' }),
};
for (const type of types) await fillDevice(disks[type], 24 * MiB);

const copyTool = (source: string, target: string) => runProgram('src/bin/fsawarebdcopy.ts', [source, target]);

/** Parses `0xSTART 0xLENGTH`, one extent a line. */
async function inUse(path: string): Promise<Extent[]> {
  const { code, stdout, stderr } = await runProgram('src/bin/in_use_sectors.ts', [path]);
  assert.deepEqual([code, stderr], [0, '']);
  return stdout
    .trimEnd()
    .split('\n')
    .map((line) => {
      const match = /^0x([0-9a-f]+) 0x([0-9a-f]+)$/.exec(line);
      assert.ok(match, line);
      return { offset: Number.parseInt(match[1]!, 16), length: Number.parseInt(match[2]!, 16) };
    });
}

for (const type of types)
  test(`in_use_sectors of ${type}: everything that the oracles call used, and little more`, async (t) => {
    const { device, image } = disks[type];
    const ours = await inUse(device);
    const oracle = await oracleUsed(type, device, sizes[type]);
    assert.deepEqual(without(oracle, ours), [], 'used by the oracle, free by us');
    // The surplus is the blocks on the free lists of XFS.
    const over = totalLength(without(ours, oracle));
    t.diagnostic(`${totalLength(ours)} bytes, ${over} more than the oracle`);
    assert.ok(over <= (type === 'xfs' ? 256 * 1024 : 0), `${over} bytes too many`);
    const partclone = await partcloneUsed(type === 'xfs' ? 'xfs' : 'extfs', device);
    assert.deepEqual(without(partclone, ours), [], 'used by partclone, free by us');
    assert.deepEqual(await inUse(image), ours, 'the image file has the same map as the device');
  });

for (const type of types)
  test(`fsawarebdcopy of ${type}: device to file, file to file, device to device, device to NBD`, async (t) => {
    const { device, image } = disks[type];
    const size = sizes[type];
    const prove = async (copy: string): Promise<void> => {
      assert.ok((await assertSameUsed(type, device, copy, size)) > 24 * MiB);
      await assertWhole(type, copy);
    };
    const copied = async (source: string, target: string): Promise<void> => {
      const { code, stdout, stderr } = await copyTool(source, target);
      assert.deepEqual([code, stderr], [0, ''], stderr);
      assert.match(stdout, /in use.*sent.*read back/);
    };

    const file = join(scratch, `${type}.img`);
    await copied(device, file);
    await prove(file);
    // Free blocks are not copied, so data in the device's free blocks does not arrive.
    const blocks = Number((await exec('stat', ['-c', '%b', file])).stdout) * 512;
    assert.ok(blocks < 90 * MiB, `${blocks} bytes allocated`);

    await copied(image, join(scratch, `${type}-2.img`));
    await prove(join(scratch, `${type}-2.img`));

    const other = await makeLoop(t, { size });
    await copied(device, other.device);
    await prove(other.device);

    const server = await startNbdkit(['memory', String(size)]);
    atEnd(t, () => server.stop());
    await copied(device, server.uri);
    const fetched = join(scratch, `${type}-fetched.img`);
    const handle = await open(fetched, 'w');
    await handle.truncate(size);
    await handle.close();
    await exec('nbdcopy', ['--', server.uri, fetched]);
    await prove(fetched);
  });

test('invalid copies are refused with one line and the right exit code', async () => {
  const { device, image } = disks.ext4;
  const target = join(scratch, 'refused.img');
  const refusal = async (args: readonly string[], exitCode: number, text: RegExp): Promise<void> => {
    const { code, stdout, stderr } = await runProgram('src/bin/fsawarebdcopy.ts', args);
    assert.deepEqual([code, stdout], [exitCode, ''], stderr);
    assert.match(stderr, text);
    assert.match(stderr, /^[^\n]+\n$/);
    assert.ok(!existsSync(target));
  };
  await refusal([device, device], 1, /itself/);
  await refusal([image, image], 1, /itself/);
  await refusal([device, image], 1, /itself/);
  await refusal([image, device], 1, /itself/);
  await refusal([join(scratch, 'not-there'), target], 1, /Unable to find/);
  await refusal([device, 'nbd://127.0.0.1:1/'], 1, /Cannot connect/);
  await refusal([device, 'nbd://a:b:c/'], 2, /nbd:/);
  await refusal([device], 2, /dst/);

  const mountPoint = join(scratch, 'mnt');
  await mountDevice(device, mountPoint);
  try {
    await refusal([device, target], 1, /is mounted at .*mnt.*dattocli startbackup/);
    const listing = await runProgram('src/bin/in_use_sectors.ts', [device]);
    assert.deepEqual([listing.code, listing.stdout], [1, '']);
    assert.match(listing.stderr, /is mounted at/);
  } finally {
    await unmount(mountPoint);
  }
  // The content of the device is unchanged.
  await assertWhole('ext4', device);
});

test('results that could not be written are failures', async () => {
  const full = await open('/dev/full', 'w');
  try {
    const { device } = disks.ext4;
    for (const [program, ...args] of [
      ['in_use_sectors', device],
      ['in_use_sectors', '--help'],
      ['fsawarebdcopy', device, join(scratch, 'full.img')],
      ['fsawarebdcopy', '--version'],
    ]) {
      const { code, stderr } = await runProgram(`src/bin/${program}.ts`, args, { output: full.fd });
      assert.equal(code, 1, `${program} ${args.join(' ')}`);
      assert.match(stderr, /could not be written to standard output: ENOSPC/);
    }
  } finally {
    await full.close();
  }
  const usage = await runProgram('src/bin/in_use_sectors.ts', []);
  assert.deepEqual([usage.code, usage.stdout], [2, '']);
  assert.match(usage.stderr, /missing required argument/);
});
