/**
 * The blktrace tracker on loop devices: whatever may have cost a record ends the epoch, with the reason; nobody else
 * is disturbed. Runs where the kernel has blktrace, and in the virtual machine (tracking-blktrace-vm.test.ts).
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, readdirSync, readlinkSync } from 'node:fs';
import { after, test } from 'node:test';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { MiB } from '../../src/base/bytes.ts';
import { AgentError } from '../../src/base/errors.ts';
import { setUpTrace, startTrace, stopTrace, tearDownTrace } from '../../src/linux/blktrace.ts';
import { BlktraceTracker } from '../../src/tracking/blktrace/blktrace-tracker.ts';
import { openDebugfs } from '../../src/linux/debugfs.ts';
import { blktraceSupport } from '../../src/tracking/blktrace/support.ts';
import { scratchFor } from '../helpers/backup.ts';
import { makeLoop } from '../helpers/loop.ts';
import { describeDevice, sh } from '../vm/guest.ts';

const support = await blktraceSupport(tmpdir());
const options = { skip: support.supported ? false : support.why, timeout: 60_000 };
const ending = { after };
// In the virtual machine it is a module.
sh('modprobe loop 2>/dev/null || true');
const { device: disk } = await makeLoop(ending, { size: 64 * MiB });
const runDirectory = scratchFor(ending);
const debugfs = await openDebugfs(runDirectory);
after(() => debugfs.close());
const other = { mask: 0xffff, bufferSize: 65_536, buffers: 2 };

async function tracking(): Promise<BlktraceTracker> {
  const tracker = new BlktraceTracker({ runDirectory });
  await tracker.track(describeDevice(disk));
  return tracker;
}

async function endedBecause(tracker: BlktraceTracker, reason: RegExp, path = disk): Promise<void> {
  const ended = (thrown: unknown) =>
    thrown instanceof AgentError && thrown.code === 'EPOCH_ENDED' && reason.test(thrown.message);
  await assert.rejects(tracker.take(describeDevice(path)), (thrown) => {
    assert.ok(ended(thrown), String(thrown));
    return true;
  });
  assert.equal(tracker.state(describeDevice(path)), undefined);
}

function traced(): boolean {
  return existsSync(join(debugfs.path, 'block', basename(disk), 'trace0'));
}

const write = (block: number, count = 1): string =>
  sh(
    `dd if=/dev/urandom of=${disk} bs=4k count=${count} seek=${block} oflag=direct conv=notrunc status=none`,
  );

test(
  'a take is yielded again until it is committed, and tracking ends with the tracker',
  options,
  async () => {
    const tracker = await tracking();
    const device = describeDevice(disk);
    const { epoch } = await tracker.track(device);
    const look = async (): Promise<[number[], () => void]> => {
      const taken = await tracker.take(device);
      return [[...taken.dirty.extents()].map(({ offset }) => offset / 4096), () => taken.commit()];
    };
    write(10);
    assert.deepEqual((await look())[0], [10]);
    write(20);
    const [both, commit] = await look();
    assert.deepEqual(both, [10, 20]);
    write(30);
    assert.deepEqual((await look())[0], [10, 20, 30]);
    // Of an earlier take: it holds less than the last one.
    commit();
    const [all, last] = await look();
    assert.deepEqual(all, [10, 20, 30]);
    last();
    assert.deepEqual((await look())[0], []);
    write(40);
    await sleep(300);
    const state = tracker.state(device)!;
    assert.deepEqual([state.epoch.id, state.dirtyBytes, state.pinned], [epoch.id, 4096, false]);
    console.log(`# ${state.memory} bytes of memory for a device of ${device.size} bytes`);
    await tracker.close();
    assert.equal(traced(), false);
    // Its map was in its memory.
    const next = await tracking();
    await next.close();
  },
);

/** A tracker in a process of its own, which says `tracking` first. */
async function trackingChild(): Promise<{ child: ChildProcess; ask: () => Promise<string> }> {
  const child = spawn('scripts/node', ['test/helpers/blktrace-child.ts', runDirectory, disk], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => String((await lines.next()).value);
  assert.equal(await next(), 'tracking');
  return {
    child,
    ask: () => {
      child.stdin.write('take\n');
      return next();
    },
  };
}

async function kill(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

test('a daemon held up for so long that buffers overflow', options, async () => {
  const { child, ask } = await trackingChild();
  try {
    write(5);
    assert.equal(await ask(), '1 blocks');
    child.kill('SIGSTOP');
    sh(`dd if=/dev/zero of=${disk} bs=512 count=7000 oflag=direct conv=notrunc status=none`);
    child.kill('SIGCONT');
    assert.match(await ask(), /dropped \d+ records/);
  } finally {
    await kill(child);
  }
});

test('somebody else traces the device: refused, and left alone', options, async () => {
  await setUpTrace(disk, other);
  await startTrace(disk);
  try {
    await assert.rejects(tracking(), (thrown) => {
      assert.ok(thrown instanceof AgentError);
      assert.equal(thrown.code, 'NOT_SUPPORTED');
      assert.match(thrown.message, /somebody else traces \/dev\/loop/);
      return true;
    });
    assert.equal(traced(), true);
  } finally {
    await tearDownTrace(disk);
  }
});

test('somebody else stops our trace', options, async () => {
  const tracker = await tracking();
  await stopTrace(disk);
  await endedBecause(tracker, /somebody stopped it/);
  await tracker.close();
  assert.equal(traced(), false);
});

test('somebody else stops our trace and starts it again', options, async () => {
  const tracker = await tracking();
  (await tracker.take(describeDevice(disk))).commit();
  await stopTrace(disk);
  await startTrace(disk);
  await endedBecause(tracker, /stopped and started again|somebody stopped it/);
  await tracker.close();
});

test('somebody else removes our trace and begins one: theirs is left alone', options, async () => {
  const tracker = await tracking();
  await tearDownTrace(disk);
  await setUpTrace(disk, other);
  await endedBecause(tracker, /removed, or the device is gone/);
  await tracker.close();
  assert.equal(traced(), true, 'the trace of somebody else was torn down');
  await tearDownTrace(disk);
});

test('the tracer of ftrace takes the records away', options, async () => {
  const tracker = await tracking();
  sh('echo blk >/sys/kernel/tracing/current_tracer');
  try {
    await endedBecause(tracker, /somebody stopped it/);
  } finally {
    sh('echo nop >/sys/kernel/tracing/current_tracer');
    await tracker.close();
  }
});

test('the reading thread dies', options, async () => {
  const tracker = await tracking();
  for (const fd of readdirSync('/proc/self/fd')) {
    const path = join('/proc/self/fd', fd);
    // All threads have one table of descriptors.
    if (existsSync(path) && readlinkSync(path).endsWith(`${basename(disk)}/dropped`)) closeSync(Number(fd));
  }
  await endedBecause(tracker, /can no longer be read/);
  await tracker.track(describeDevice(disk));
  (await tracker.take(describeDevice(disk))).commit();
  await tracker.close();
  assert.equal(traced(), false);
});

test(
  'a killed daemon leaves its trace; the next one removes it and says why its map is gone',
  options,
  async () => {
    const { child } = await trackingChild();
    // While it lives it is somebody else.
    await assert.rejects(tracking(), /somebody else traces/);
    await kill(child);
    assert.equal(traced(), true);
    const tracker = new BlktraceTracker({ runDirectory });
    const { doubt } = await tracker.track(describeDevice(disk));
    assert.match(doubt ?? '', /daemon that tracked it before has ended/);
    write(7);
    const { dirty } = await tracker.take(describeDevice(disk));
    assert.deepEqual([...dirty.extents()], [{ offset: 7 * 4096, length: 4096 }]);
    await tracker.close();
    // A record of ours does not make somebody else's trace ours.
    await setUpTrace(disk, other);
    await assert.rejects(tracking(), /somebody else traces/);
    assert.equal(traced(), true);
    await tearDownTrace(disk);
  },
);

test('a device that changes its size or is another under its old number', options, async (t) => {
  const loop = await makeLoop(t, { size: 8 * MiB });
  const tracker = new BlktraceTracker({ runDirectory });
  const device = describeDevice(loop.device);
  await tracker.track(device);
  (await tracker.take(device)).commit();
  sh(`truncate -s 10M ${loop.image}; losetup -c ${loop.device}`);
  await assert.rejects(tracker.take(device), /size in bytes was 8388608 and is 10485760/);
  const again = describeDevice(loop.device);
  assert.match((await tracker.track(again)).doubt ?? '', /size in bytes/);
  sh(
    `cp --sparse=always ${loop.image} ${loop.image}2; losetup -d ${loop.device}; losetup ${loop.device} ${loop.image}2`,
  );
  await assert.rejects(tracker.take(again), /disk sequence|place in sysfs/);
  await tracker.close();
});

test('who lacks debugfs mounts it for himself alone', options, async () => {
  // The test's own mount namespace has none, or /sys/kernel/debug.
  const mounts = (): string => sh("grep -c ' debugfs ' /proc/self/mountinfo || true");
  const before = mounts();
  const tracker = await tracking();
  assert.equal(mounts(), before);
  await tracker.close();
});
