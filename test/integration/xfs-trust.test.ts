/**
 * Proves when the XFS free-space trees are trusted: with a clean log, and in a freeze during writes. A dirty
 * log and damage make everything used. Oracles: xfs_db, xfs_logprint, xfs_repair. Needs root and the packages
 * xfsprogs, util-linux.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { open, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test, type TestContext } from 'node:test';
import { KiB, MiB } from '../../src/base/bytes.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { attachLoop, detachLoop, makeLoop } from '../helpers/loop.ts';
import { compare, fill, mapOf, mounted, type Outcome } from '../helpers/xfs-images.ts';

test('the log: clean after an unmount at any position of the log, dirty after a shutdown', async (t) => {
  // Each synchronous write takes 256 KiB of the 64 MiB log.
  const disk = await makeLoop(t, {
    size: 320 * MiB,
    filesystem: 'xfs',
    mkfsArgs: ['-l', 'su=256k,size=64m'],
  });
  const heads: number[] = [];
  for (let round = 0; round < 7; round++) {
    await mounted(disk, async (mountPoint) => {
      for (let i = 0; i < 70 + round; i++) {
        const file = await open(join(mountPoint, `s${round}-${i}`), 'w');
        await file.sync();
        await file.close();
      }
    });
    await compare(await mapOf(disk.device), disk.image);
    const { stdout } = await exec('xfs_logprint', ['-t', disk.image]);
    assert.match(stdout, /<CLEAN>/);
    heads.push(Number(/head: (\d+)/.exec(stdout)?.[1]));
  }
  assert.ok(
    heads.some((head, i) => i > 0 && head < heads[i - 1]!),
    `the log went round: ${heads.join(' ')}`,
  );
  for (const flush of [true, false]) {
    await mounted(disk, async (mountPoint) => {
      await writeFile(join(mountPoint, `after-${flush}`), Buffer.alloc(100_000, 1));
      if (flush) await exec('sync', ['-f', mountPoint]);
      await exec('xfs_io', ['-x', '-c', flush ? 'shutdown' : 'shutdown -f', mountPoint]);
    });
    const { stdout } = await exec('xfs_logprint', ['-t', disk.image], { allow: [1] });
    assert.match(stdout, /<DIRTY>/);
    const outcome = await mapOf(disk.device);
    assert.equal(outcome.everything, true);
    assert.match(outcome.warnings, /log is dirty/);
  }
});

test('damage: a flipped bit in superblock, AGF or tree, or a repair mark, makes everything used', async (t) => {
  const disk = await makeLoop(t, {
    size: 320 * MiB,
    filesystem: 'xfs',
    mkfsArgs: ['-b', 'size=1024'],
  });
  await mounted(disk, (mountPoint) => fill(mountPoint, 1500, KiB));
  await compare(await mapOf(disk.image), disk.image);
  const places: readonly (readonly [string, readonly string[]])[] = [
    ['superblock', ['sb 0']],
    ['allocation group 1, AGF', ['agf 1']],
    ['allocation group 0, free-space tree', ['agf 0', 'addr bnoroot']],
    ['allocation group 0, free-space tree', ['agf 0', 'addr bnoroot', 'addr ptrs[2]']],
  ];
  for (const [name, walk] of places) {
    const at = [...walk, 'daddr'].flatMap((command) => ['-c', command]);
    const daddr = /daddr is (\d+)/.exec((await exec('xfs_db', ['-r', ...at, disk.image])).stdout)?.[1];
    const offset = Number(daddr) * 512 + 150;
    await flipBit(disk.image, offset);
    const crc = [...walk, 'p crc'].flatMap((command) => ['-c', command]);
    const said = (await exec('xfs_db', ['-r', ...crc, disk.image], { allow: [1] })).stdout;
    const error = await failure(disk.image);
    assert.ok(error.includes(name), error);
    assert.match(error, /checksum is 0x[0-9a-f]{8}, its contents give 0x[0-9a-f]{8}/);
    // xfs_db prints the four bytes in the order of the disk.
    const stored = /crc = 0x([0-9a-f]+)/.exec(said)![1]!.padStart(8, '0');
    const swapped = Buffer.from(stored, 'hex').reverse().toString('hex');
    assert.match(error, new RegExp(`checksum is 0x${swapped},`));
    await flipBit(disk.image, offset);
  }
  await compare(await mapOf(disk.image), disk.image);
  // xfs_db updates the checksum of its writes. So the checksum is right, and only the feature can be the
  // cause.
  const sealed = async (field: string, value: string): Promise<string> => {
    const old = await exec('xfs_db', ['-r', '-c', 'sb 0', '-c', `p ${field}`, disk.image]);
    const write = (text: string): Promise<unknown> =>
      exec('xfs_db', ['-x', '-c', 'sb 0', '-c', `write -d ${field} ${text}`, disk.image], { allow: [1] });
    await write(value);
    const error = await failure(disk.image);
    await write(/= (\S+)/.exec(old.stdout)![1]!);
    return error;
  };
  assert.match(await sealed('features_incompat', '0x1b'), /needing repair/);
  assert.match(await sealed('features_incompat', '0x80000001'), /incompatible features .*0x80000000/);
  assert.match(await sealed('features_ro_compat', '0x405'), /read-only compatible .*0x00000400/);
  await compare(await mapOf(disk.image), disk.image);
});

/** Returns why the map covers everything, known before the walk or found by it. */
async function failure(image: string): Promise<string> {
  try {
    const outcome = await mapOf(image);
    assert.equal(outcome.everything, true, 'the damage went unnoticed');
    return outcome.warnings;
  } catch (error) {
    assert.ok(
      error instanceof Error && 'code' in error && error.code === 'FILESYSTEM_UNREADABLE',
      String(error),
    );
    return error.message;
  }
}

async function flipBit(path: string, offset: number): Promise<void> {
  const file = await open(path, 'r+');
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, offset);
  byte[0] = byte[0]! ^ 0x10;
  await file.write(byte, 0, 1, offset);
  await file.close();
}

test('frozen during writes: the map on the disk is correct, and its image is as good as clean', async (t) => {
  for (const args of [[], ['-m', 'rmapbt=1', '-b', 'size=1024']]) {
    const disk = await makeLoop(t, { size: 320 * MiB, filesystem: 'xfs', mkfsArgs: args, mount: true });
    const mountPoint = disk.mountPoint!;
    await fill(mountPoint, 2000, KiB);
    const stop = startWriter(t, mountPoint);
    const copy = `${disk.image}.copy`;
    for (let round = 0; round < 4; round++) {
      await waitForFiles(mountPoint, round);
      const live = await mapOf(disk.device, 'live');
      assert.equal(live.everything, false);
      let before: Outcome;
      let after: Outcome;
      await exec('fsfreeze', ['--freeze', mountPoint]);
      try {
        before = await mapOf(disk.device, 'frozen');
        await rm(copy, { force: true });
        await exec('dd', [
          `if=${disk.device}`,
          `of=${copy}`,
          'bs=1M',
          'iflag=direct',
          'conv=sparse',
          'status=none',
        ]);
        after = await mapOf(disk.device, 'frozen');
      } finally {
        await exec('fsfreeze', ['--unfreeze', mountPoint]);
      }
      assert.deepEqual(before, after);
      const result = await compare(before, copy);
      assert.deepEqual(await mapOf(copy, 'idle'), before);
      t.diagnostic(`frozen: ${result.extents} free extents, over-count ${result.overCount} bytes`);
    }
    await stop();
    // Replaying the frozen image's log must not find more used blocks than the map had.
    const device = await attachLoop(copy);
    atEnd(t, () => detachLoop(device));
    await mounted({ device, directory: `${disk.directory}/copy` }, () => Promise.resolve(), 'nouuid');
    await exec('xfs_repair', ['-n', copy]);
  }
});

/** Makes, grows and removes files until it is stopped. It is a separate process, since a freeze blocks it. */
function startWriter(t: TestContext, mountPoint: string): () => Promise<void> {
  const script =
    'i=0; while [ ! -e stop ]; do i=$((i+1)); head -c $((i % 97 * 1000)) /dev/zero > w$i; ' +
    'echo $i > count; [ $((i % 3)) = 0 ] && rm -f w$((i-2)); [ $i -gt 900 ] && rm -f w$((i-900)); done';
  const child = spawn('sh', ['-c', script], { cwd: mountPoint, stdio: 'ignore' });
  const ended = once(child, 'exit');
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await exec('fsfreeze', ['--unfreeze', mountPoint], { allow: [1] });
    await ended;
  };
  atEnd(t, stop);
  return stop;
}

/** Waits until the writer has made some hundred files more. */
async function waitForFiles(mountPoint: string, round: number): Promise<void> {
  const deadline = Date.now() + 20_000;
  for (;;) {
    const { stdout } = await exec('cat', [join(mountPoint, 'count')], { allow: [1] });
    if (Number(stdout) > (round + 1) * 250) return;
    assert.ok(Date.now() < deadline, `the writer is at ${stdout}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
