/**
 * Proves that a full or read-only state directory is reported. Each job and each start that needs it ends
 * with an error that names the path, the cause and the next step. Nothing is lost, and everything works again
 * afterwards.
 *
 * Also proves that a machine restored from an image does not list the job that made the image as failed.
 */
import assert from 'node:assert/strict';
import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { History } from '../../src/daemon/history.ts';
import type { ErrorDocument } from '../../src/base/errors.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { backUpWell, daemonFor, refused, scratchFor, scriptIn } from '../helpers/backup.ts';
import { dattocli, runProgram } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertWhole } from '../helpers/image-proof.ts';
import { makeLoop, mountDevice, unmount } from '../helpers/loop.ts';
import { vaultFor } from '../helpers/vault.ts';

test('a full and a read-only state directory', async (t) => {
  const scratch = scratchFor(t, { memory: true });
  const small = await makeLoop(t, { size: 8 * MiB, filesystem: 'ext4', mkfsArgs: ['-m', '0'], mount: true });
  const state = join(small.mountPoint!, 'state');
  const daemon = await daemonFor(t, { arguments: ['--state-dir', state] });
  const disk = await makeLoop(t, { size: 16 * MiB, filesystem: 'ext4', mount: true });
  await fillWithFiles(disk.mountPoint!, MiB);
  const vault = await vaultFor(t, state);
  const image = join(scratch, 'image');
  const to = (target: string) => ['--device', disk.device, '--target', target];
  // The copy is the history of a machine that is restored from the image.
  const copied = join(scratch, 'history.sqlite');
  const hook = await scriptIn(scratch, 'copy-history', [`cp ${state}/history.sqlite ${copied}`]);
  await backUpWell(daemon, [...to(image), '--frozen-hook', hook, '--max-freeze', '20s']);
  const history = new History(copied, { bootId: 'another boot' });
  assert.deepEqual(
    history.failInterrupted(new Date()).map(({ state: ended }) => ended),
    ['UNKNOWN'],
  );
  history.close();

  const lacking = async (said: RegExp, next: RegExp): Promise<void> => {
    const known = (error: ErrorDocument | null, path: RegExp): void => {
      assert.equal(error?.code, 'FILE_ERROR', JSON.stringify(error));
      assert.match(error.message, path);
      assert.match(error.message, said);
      assert.match(error.hint ?? '', next);
    };
    // A job that has a chain: it is refused, or it starts and fails.
    const job = await dattocli(['startbackup', '--differential', '--wait', '--json', ...to(image)], daemon);
    assert.equal(job.code, 1);
    const error =
      job.stdout === ''
        ? (JSON.parse(job.stderr) as ErrorDocument)
        : (JSON.parse(job.stdout) as JobStatus).error;
    known(error, new RegExp(`^${state}/chains/[0-9a-f]+/`));
    for (const target of [join(scratch, 'second'), vault.target])
      known(
        await refused(daemon, ['startbackup', '--full', '--wait', ...to(target)], 'FILE_ERROR'),
        new RegExp(`^${state}/`),
      );
  };
  const filler = join(state, 'filler');
  // Fills the disk to the last block, including the blocks reserved for delayed writes.
  for (const options of [
    ['bs=64k'],
    ['bs=1k', 'oflag=append', 'conv=notrunc,fsync'],
    ['bs=1k', 'oflag=append', 'conv=notrunc'],
  ])
    await exec('dd', ['if=/dev/zero', `of=${filler}`, ...options], { allow: [1] });
  await lacking(/ENOSPC|full/, /make room|needs free space/);
  rmSync(filler);
  await backUpWell(daemon, to(image), '--differential');

  // The kernel does the same after an error of the filesystem.
  await exec('mount', ['-o', 'remount,abort', small.mountPoint!]);
  await lacking(
    /EROFS|readonly|read-only/,
    /make its filesystem writable|needs free space and write permission/,
  );
  await daemon.end();
  const start = await runProgram('src/bin/dattod.ts', [
    ...['--foreground', ...daemon.arguments, '--state-dir', state],
  ]);
  assert.equal(start.code, 1);
  assert.match(start.stderr, new RegExp(`^dattod: The job history ${state}/history.sqlite cannot be used: `));
  assert.match(start.stderr, /make its filesystem writable again/);
  assert.doesNotMatch(readFileSync(daemon.logFile, 'utf8'), /"msg":"defect"/);

  await unmount(small.mountPoint!);
  await exec('e2fsck', ['-fy', small.device], { allow: [1] });
  await mountDevice(small.device, small.mountPoint!);
  const again = await daemonFor(t, { paths: daemon, arguments: ['--state-dir', state] });
  await backUpWell(again, to(image), '--differential');
  await assertWhole('ext4', image, 'frozen');
  await backUpWell(again, to(vault.target));
});
