/**
 * Proves that the image after each incremental is the device at one instant, with writers hammering the filesystem
 * all the time, and whatever happened to the jobs before: cancelled, or the daemon killed by SIGKILL at a random
 * moment. Tracking outlives the daemon, so that all of them stay incrementals.
 *
 * Needs a kernel that eBPF can track with; skipped elsewhere.
 */
import assert from 'node:assert/strict';
import { join } from 'node:path';
import { test } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MiB } from '../../src/base/bytes.ts';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import {
  assertNothingLeft,
  backUp,
  type BackupResult,
  type KindFlag,
  scratchFor,
  scriptIn,
  startJob,
  untilEnded,
} from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { dattocli, startDaemon } from '../helpers/daemon.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameUsed, assertWhole, type FilesystemName } from '../helpers/image-proof.ts';
import { makeLoop } from '../helpers/loop.ts';
import { seeded } from '../helpers/random.ts';
import { startChurn, startFio } from '../helpers/writers.ts';

const support = await trackingSupport();
const skip = support.supported ? false : support.why;

const cases: readonly { type: FilesystemName; size: number; seed: number }[] = [
  { type: 'ext4', size: 192 * MiB, seed: 1 },
  { type: 'xfs', size: 320 * MiB, seed: 2 },
];

for (const { type, size, seed } of cases)
  test(
    `${type}: a full and incrementals under load, with jobs cancelled and daemons killed`,
    { skip },
    async (t) => {
      const scratch = scratchFor(t);
      const memory = scratchFor(t, { memory: true });
      const server = await startDattosrv(t, ['--create']);
      const random = seeded(seed);
      let daemon = await startDaemon({ tracking: true });
      atEnd(t, async () => {
        await daemon.stop();
      });
      const disk = await makeLoop(t, { size, filesystem: type, mount: true });
      const mountPoint = disk.mountPoint!;
      await fillWithFiles(mountPoint, 24 * MiB);
      const writers = [await startFio(t, mountPoint), await startChurn(t, mountPoint)];
      const reference = join(memory, 'reference');
      const hook = await scriptIn(scratch, 'copy-device', [
        `dd if=${disk.device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
      ]);
      const target = ['--device', mountPoint, '--target', server.uriOf(`${type}@${size}`)];
      const image = join(server.directory, type);

      const proven = async (kind: KindFlag): Promise<BackupResult> => {
        const result = await backUp(daemon, [...target, '--frozen-hook', hook, '--max-freeze', '20s'], kind);
        const { status, code, stderr } = result;
        const device = status.devices[0]!;
        assert.deepEqual(
          [status.state, status.error, device.kind, device.fallback_reason, device.tracker],
          ['SUCCEEDED', null, kind.slice(2), null, 'ebpf'],
          stderr,
        );
        // A writer may be as fast as the target; nothing else is to be said.
        assert.deepEqual(
          status.warnings.filter((warning) => warning.code !== 'CANNOT_CONVERGE'),
          [],
        );
        assert.equal(code, status.warnings.length === 0 ? 0 : 5);
        for (const writer of writers) writer.assertRunning();
        await assertSameUsed(type, reference, image, size);
        await assertWhole(type, image, 'frozen');
        return result;
      };
      const interrupted = async (how: 'cancelled' | 'killed'): Promise<void> => {
        const job = await startJob(daemon, [...target, '--rate', '8M'], '--incremental');
        await sleep(Math.floor(random() * 2500));
        if (how === 'killed') {
          await daemon.kill();
          daemon = await startDaemon({ paths: daemon, tracking: true });
        } else await dattocli(['stopbackup', job], daemon);
        const { state, devices } = await untilEnded(daemon, job);
        t.diagnostic(
          `${how} in pass ${devices[0]?.pass ?? 0}: ${state}, ${devices[0]?.bytes_sent ?? 0} bytes sent`,
        );
      };

      await proven('--full');
      for (const how of ['cancelled', 'killed', undefined, 'killed', 'cancelled', undefined] as const) {
        if (how !== undefined) await interrupted(how);
        if (how !== undefined && random() < 0.5) await interrupted('killed');
        const { status } = await proven('--incremental');
        const { bytes_sent: sent, used_bytes: used, freeze_ms: frozen, pass } = status.devices[0]!;
        t.diagnostic(`incremental: ${sent} of ${used} bytes sent, ${pass} passes, frozen ${frozen ?? 0} ms`);
      }
      for (const writer of writers) await writer.stop();
      await assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [mountPoint] });
    },
  );
