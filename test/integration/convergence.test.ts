/**
 * Proves the behaviour if a device is written faster than its target accepts data. Nothing is slowed down.
 * The freeze still finds little, since the last rounds go to memory and not to the target. If memory is too
 * small, further passes follow, and at last the target is written inside the freeze.
 *
 * A freeze that would be too long is refused before anything is frozen. The filesystem is synced right before
 * it is frozen.
 *
 * Needs a kernel on which eBPF tracking works; skipped elsewhere.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import {
  assertNothingLeft,
  backUp,
  backUpWell,
  daemonFor,
  jobStatus,
  scratchFor,
  scriptIn,
  startJob,
  untilEnded,
} from '../helpers/backup.ts';
import { atEnd } from '../helpers/cleanup.ts';
import { waitFor } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { makeLoop } from '../helpers/loop.ts';
import { startFio } from '../helpers/writers.ts';

const support = await trackingSupport();
const skip = support.supported ? false : support.why;

test('a device that is written faster than its target accepts data', { skip }, async (t) => {
  const scratch = scratchFor(t);
  const memory = scratchFor(t, { memory: true });
  const daemon = await daemonFor(t, {
    tracking: true,
    entry: 'test/helpers/dattod-room.ts',
    environment: { DATTO_ROOM: '64M' },
  });
  const size = 320 * MiB;
  const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  const mountPoint = disk.mountPoint!;
  await fillWithFiles(mountPoint, 8 * MiB);
  const fio = await startFio(t, mountPoint, { fileSize: '24m', rate: '64m', seconds: 300 });
  await waitFor('fio has made its files', 60_000, () => {
    const made = join(mountPoint, 'fio', 'hammer.1.0');
    return existsSync(made) && existsSync(join(mountPoint, 'fio', 'hammer.0.0'));
  });
  const reference = join(memory, 'reference');
  const hook = await scriptIn(scratch, 'copy-device', [
    `dd if=${disk.device} of=${reference} bs=1M iflag=direct conv=sparse status=none`,
  ]);
  const image = join(scratch, 'image');
  const slow = ['--device', disk.device, '--target', image, '--rate', '16M', '--frozen-hook', hook];

  await t.test('the freeze does not wait for the target, and there is no warning', async (each) => {
    const { status } = await backUp(daemon, [...slow, '--max-freeze', '120s'], '--full');
    fio.assertRunning();
    const device = status.devices[0]!;
    each.diagnostic(`${device.pass} passes, frozen for ${device.freeze_ms ?? -1} ms with the hook`);
    assert.deepEqual([status.state, status.error, status.warnings], ['SUCCEEDED', null, []]);
    assert.equal(device.tracker, 'ebpf');
    await assertSameUsed('ext4', reference, image, size);
    await assertWhole('ext4', image, 'frozen');
  });

  await t.test('data without room in memory is tried again, and at last sent in the freeze', async () => {
    const late = await scriptIn(scratch, 'write-late', [
      `dd if=/dev/urandom of=${join(mountPoint, 'late')} bs=1M count=80 conv=notrunc,fsync status=none`,
    ]);
    const limits = ['--max-freeze', '120s', '--max-passes', '1'];
    const args = [...slow, ...limits, '--pre-freeze-hook', late];
    const logged = daemon.log().length;
    const { status } = await backUp(daemon, args, '--incremental');
    assert.deepEqual(
      [status.state, status.error, status.devices[0]?.kind],
      ['SUCCEEDED', null, 'incremental'],
    );
    const tries = [
      ...daemon
        .log()
        .slice(logged)
        .matchAll(/"tries":(\d).*another pass before the next freeze/g),
    ];
    assert.deepEqual(
      tries.map(([, number]) => number),
      ['1', '2'],
      'one pass before each freeze, and three freezes',
    );
    // A slow machine may find before a freeze that memory has no room. That try has no pass inside the
    // freeze.
    const { pass } = status.devices[0]!;
    assert.ok(pass >= 4 && pass <= 6, `${pass} passes`);
    assert.deepEqual(
      status.warnings.map(({ code }) => code),
      ['FREEZE_OVERFLOW'],
      '80 MiB were written after each last pass, and 64 MiB have room',
    );
    await assertSameUsed('ext4', reference, image, size);
    await assertWhole('ext4', image, 'frozen');
  });

  await t.test('a freeze that would be too long is refused before anything is frozen', async () => {
    const args = [...slow, '--max-freeze', '20ms', '--max-passes', '1'];
    const { status } = await backUp(daemon, args, '--incremental');
    assert.deepEqual([status.state, status.error?.code], ['FAILED', 'FREEZE_TOO_LONG']);
    assert.match(
      status.error?.message ?? '',
      /is written faster than the target takes it: .* allowed are 20 ms/,
    );
    assert.match(status.error?.hint ?? '', /--max-freeze .*--max-passes/);
    assert.equal(status.devices[0]?.freeze_ms, null);
    fio.assertRunning();
  });

  await fio.stop();
  await t.test('when the writer pauses, the next incremental is right and freezes shortly', async (each) => {
    const args = ['--device', disk.device, '--target', image, '--frozen-hook', hook, '--max-freeze', '120s'];
    const status = await backUpWell(daemon, args, '--incremental');
    each.diagnostic(`${status.devices[0]?.bytes_sent ?? 0} bytes sent`);
    await assertSameUsed('ext4', reference, image, size);
    await assertNothingLeft(daemon, { devices: [disk.device], mountPoints: [mountPoint] });
  });
});

test(
  'the page cache is written right before the freeze; until then reads have idle priority',
  { skip },
  async (t) => {
    const scratch = scratchFor(t);
    const daemon = await daemonFor(t, { tracking: true });
    const disk = await makeLoop(t, { size: 160 * MiB, filesystem: 'ext4', mount: true });
    const target = ['--device', disk.device, '--target', join(scratch, 'image')];
    await backUpWell(daemon, target);
    const trace = join(scratch, 'trace');
    const strace = spawn('strace', [
      ...['-f', '-qq', '-e', 'trace=syncfs,ioctl,ioprio_set', '-o', trace, '-p', String(daemon.pid)],
    ]);
    const ended = new Promise((resolve) => strace.once('exit', resolve));
    atEnd(t, async () => {
      strace.kill('SIGINT');
      await ended;
    });
    await waitFor('strace is attached', 20_000, () =>
      /^TracerPid:\t[1-9]/m.test(readFileSync(`/proc/${daemon.pid}/status`, 'utf8')),
    );
    // This data is already on the device, so that there is a pass.
    writeFileSync(join(disk.mountPoint!, 'written'), randomBytes(8 * MiB));
    await exec('sync', ['--file-system', disk.mountPoint!]);
    writeFileSync(join(disk.mountPoint!, 'cached'), randomBytes(24 * MiB));
    const job = await startJob(daemon, [...target, '--max-freeze', '120s'], '--incremental');
    assert.equal((await untilEnded(daemon, job, 120_000)).state, 'SUCCEEDED');
    const { devices } = await jobStatus(daemon, job);
    assert.ok(devices[0]!.bytes_sent >= 32 * MiB);
    const lines = readFileSync(trace, 'utf8').split('\n');
    assertIdleOnlyBeforeFreeze(lines);
    const calls = lines.flatMap((line) => /(syncfs\(|FIFREEZE|FITHAW)/.exec(line)?.[1] ?? []);
    const freeze = calls.lastIndexOf('FIFREEZE');
    assert.ok(freeze > 0, calls.join(' '));
    assert.equal(calls[freeze - 1], 'syncfs(', calls.join(' '));

    writeFileSync(join(disk.mountPoint!, 'written'), randomBytes(8 * MiB));
    await exec('sync', ['--file-system', disk.mountPoint!]);
    await backUpWell(daemon, [...target, '--max-freeze', '120s', '--impact', 'high'], '--incremental');
    const more = readFileSync(trace, 'utf8').split('\n').slice(lines.length);
    assert.ok(
      more.some((line) => line.includes('FIFREEZE')),
      more.join('\n'),
    );
    assert.deepEqual(
      more.filter((line) => line.includes('ioprio_set(')),
      [],
      'no thread of a job of high impact changes its class',
    );
  },
);

/**
 * Checks every call of every thread in strace's output. At least one thread reads with idle priority, and no
 * thread has it during a freeze.
 */
function assertIdleOnlyBeforeFreeze(lines: readonly string[]): void {
  const classes = new Map<string, string>();
  let idleSeen = false;
  let frozen = false;
  for (const line of lines) {
    if (line.includes('FIFREEZE')) frozen = true;
    if (line.includes('FITHAW')) frozen = false;
    const call = /^(\d+) .*ioprio_set\(IOPRIO_WHO_PROCESS, 0, .*(IOPRIO_CLASS_\w+)/.exec(line);
    if (call !== null) {
      classes.set(call[1]!, call[2]!);
      idleSeen ||= call[2] === 'IOPRIO_CLASS_IDLE';
    }
    if (frozen) assert.ok(![...classes.values()].includes('IOPRIO_CLASS_IDLE'), lines.join('\n'));
  }
  assert.ok(idleSeen, lines.join('\n'));
}
