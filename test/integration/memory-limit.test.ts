/**
 * Proves that a daemon in a control group with little memory is not killed in the middle of a job. Backups of
 * a busy device to a file and a vault are right within 256 MiB. With less memory they are refused with the
 * limit and the need.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { backUpWell, daemonFor, refused, scratchFor, scriptIn } from '../helpers/backup.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { makeLoop } from '../helpers/loop.ts';
import { memoryGroupFor } from '../helpers/memory-group.ts';
import { vaultFor } from '../helpers/vault.ts';
import { startStamper } from '../helpers/writers.ts';

const size = 96 * MiB;

test('a memory limit of the control group: right within 256 MiB, refused with less', async (t) => {
  const group = memoryGroupFor(t);
  if (group === undefined) {
    t.skip('no control group with the memory controller can be made here');
    return;
  }
  const scratch = scratchFor(t);
  // Uses the launcher of the build, whose allocator settings are part of this test.
  const daemon = await daemonFor(t, { entry: 'build/dattod', tracking: true });
  group.limit(256 * MiB);
  group.join(daemon.pid);
  // A tmpfs would count as memory of the group.
  const vault = await vaultFor(t, daemon.stateDirectory, { parent: scratch });
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  await fillWithFiles(disk.mountPoint!, 24 * MiB);
  await startStamper(t, disk.mountPoint!, { seed: 1, bytesPerSecond: 4 * MiB, mebibytes: 16 });
  const image = join(scratch, 'image');
  const reference = join(scratch, 'reference');
  const hook = await scriptIn(scratch, 'copy', [
    `dd if=${disk.device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
  ]);
  const to = (target: string) => ['--device', disk.device, '--target', target];
  const proof = ['--frozen-hook', hook, '--max-freeze', '20s'];
  for (const kind of ['--full', '--incremental'] as const) {
    await backUpWell(daemon, [...to(image), ...proof], kind);
    await assertSameUsed('ext4', reference, image, size);
    const { devices } = await backUpWell(daemon, [...to(vault.target), ...proof], kind);
    const point = (await vault.points()).find(({ id }) => id === devices[0]!.point)!;
    const restored = join(scratch, 'restored');
    await vault.dump(point.devices[0]!, restored);
    await assertSameUsed('ext4', reference, restored, size);
    await assertWhole('ext4', restored, 'frozen');
  }
  group.limit(group.held() + 64 * MiB);
  const error = await refused(daemon, ['startbackup', '--full', ...to(vault.target)], 'NOT_ENOUGH_MEMORY');
  assert.match(error.message, new RegExp(`takes about .* MiB .*${group.directory} has `));
  assert.equal(group.killed(), 0);
  assert.equal(daemon.child.exitCode, null);
});
