/**
 * Proves in the virtual machine that every possible loss of a record ends the epoch, with the reason, and
 * that no other tracer is disturbed.
 */
import './inside.ts';
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, existsSync, openSync, readdirSync, readlinkSync } from 'node:fs';
import { after, afterEach, test } from 'node:test';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import { MiB } from '../../../src/base/bytes.ts';
import { AgentError } from '../../../src/base/errors.ts';
import { setUpTrace, startTrace, stopTrace, tearDownTrace } from '../../../src/linux/blktrace.ts';
import { newGeneration } from '../../../src/tracking/generation.ts';
import { BlktraceTracker } from '../../../src/tracking/blktrace/blktrace-tracker.ts';
import { openDebugfs } from '../../../src/linux/debugfs.ts';
import { checked, declare } from '../../../src/linux/libc.ts';
import { removeLeftTraces } from '../../../src/tracking/blktrace/remove-left.ts';
import { scratchFor } from '../../helpers/backup.ts';
import { waitFor } from '../../helpers/daemon.ts';
import { makeLoop } from '../../helpers/loop.ts';
import { describeDevice, sh } from '../guest.ts';
import { writePastBlockLayer } from './passthrough.ts';

const dup2 = declare<[from: number, to: number]>('dup2', 'int', ['int', 'int']);
const ending = { after };
const disk = '/dev/vda';
const runDirectory = scratchFor(ending);
const debugfs = await openDebugfs(runDirectory);
after(() => debugfs.close());
const other = { mask: 0xffff, bufferSize: 65_536, buffers: 2 };

// One tracker for all tests, because its thread takes seconds to start here.
const tracker = new BlktraceTracker({ runDirectory });
after(() => tracker.close());
afterEach(async () => {
  await tracker.untrack(describeDevice(disk));
  // Removes the trace of a test that failed.
  await tearDownTrace(disk).catch(() => undefined);
});

const track = () => tracker.track(describeDevice(disk));

async function endedBecause(reason: RegExp, path = disk): Promise<void> {
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

test('a take is returned again until it is committed, and tracking ends with the tracker', async () => {
  await track();
  const device = describeDevice(disk);
  const { epoch } = await tracker.track(device);
  const look = async (): Promise<[number[], () => void]> => {
    const taken = await tracker.take(device);
    return [
      [...taken.dirty.extents()].map(({ offset }) => offset / 4096),
      () => taken.commit(newGeneration()),
    ];
  };
  write(10);
  assert.deepEqual((await look())[0], [10]);
  write(20);
  const [both, commit] = await look();
  assert.deepEqual(both, [10, 20]);
  write(30);
  assert.deepEqual((await look())[0], [10, 20, 30]);
  // This commit belongs to an earlier take, which holds less than the last one.
  commit();
  const [all, last] = await look();
  assert.deepEqual(all, [10, 20, 30]);
  last();
  assert.deepEqual((await look())[0], []);
  write(40);
  await waitFor('the write is seen', 30_000, () => tracker.state(device)?.dirtyBytes === 4096);
  const state = tracker.state(device)!;
  assert.deepEqual([state.epoch.id, state.dirtyBytes, state.pinned], [epoch.id, 4096, false]);
  console.log(`# ${state.memory} bytes of memory for a device of ${device.size} bytes`);
  await tracker.untrack(device);
  assert.equal(traced(), false);
  // The map was only in the memory of the process.
  assert.equal((await track()).doubt, undefined);
});

/** Starts a tracker in a separate process, which prints `tracking` first. */
async function trackingChild(): Promise<{
  child: ChildProcess;
  ask: (what: 'take' | 'track') => Promise<string>;
}> {
  const child = spawn('scripts/node', ['test/vm/blktrace/tracking-child.ts', runDirectory, disk], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<string> => String((await lines.next()).value);
  assert.equal(await next(), 'tracking');
  return {
    child,
    ask: (what) => {
      child.stdin.write(`${what}\n`);
      return next();
    },
  };
}

async function kill(child: ChildProcess): Promise<void> {
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

test('another process traces the device: refused, and left alone', async () => {
  await setUpTrace(disk, other);
  await startTrace(disk);
  try {
    await assert.rejects(track(), (thrown) => {
      assert.ok(thrown instanceof AgentError);
      assert.equal(thrown.code, 'NOT_SUPPORTED');
      assert.match(thrown.message, /another process already traces \/dev\/vda/);
      return true;
    });
    assert.equal(traced(), true);
  } finally {
    await tearDownTrace(disk);
  }
});

test('another process stops our trace', async () => {
  await track();
  await stopTrace(disk);
  await endedBecause(/another process stopped it/);
  await tracker.untrack(describeDevice(disk));
  assert.equal(traced(), false);
});

test('another process stops our trace and starts it again', async () => {
  await track();
  (await tracker.take(describeDevice(disk))).commit(newGeneration());
  await stopTrace(disk);
  await startTrace(disk);
  await endedBecause(/stopped and started again|another process stopped it/);
});

test('another process removes our trace and begins its own: its trace is left alone', async () => {
  await track();
  await tearDownTrace(disk);
  await setUpTrace(disk, other);
  // The trace is stopped first, and a drain may come in between.
  await endedBecause(/removed, or the device is gone|another process stopped it/);
  await tracker.untrack(describeDevice(disk));
  assert.equal(traced(), true, 'the trace of somebody else was torn down');
  await tearDownTrace(disk);
});

test('the same, if the tracker has seen that its trace was stopped before it is removed', async () => {
  await track();
  await stopTrace(disk);
  await waitFor('the tracker has noticed', 60_000, () => tracker.state(describeDevice(disk)) === undefined);
  await tearDownTrace(disk);
  await setUpTrace(disk, other);
  await endedBecause(/another process stopped it/);
  await tracker.untrack(describeDevice(disk));
  assert.equal(traced(), true, 'the trace of somebody else was torn down');
  await tearDownTrace(disk);
});

test('the tracer of ftrace takes the records away', async () => {
  await track();
  sh('echo blk >/sys/kernel/tracing/current_tracer');
  try {
    await endedBecause(/another process stopped it/);
  } finally {
    sh('echo nop >/sys/kernel/tracing/current_tracer');
  }
});

test('the counter of dropped records becomes unreadable', async () => {
  await track();
  // All threads share one table of descriptors. The descriptor is not closed, because another file would get
  // its number.
  const directory = openSync('/', 'r');
  for (const fd of readdirSync('/proc/self/fd')) {
    const path = join('/proc/self/fd', fd);
    if (existsSync(path) && readlinkSync(path).endsWith(`${basename(disk)}/dropped`))
      checked(dup2, [directory, Number(fd)], 'dup2', path);
  }
  closeSync(directory);
  await endedBecause(/can no longer be read/);
  await tracker.track(describeDevice(disk));
  (await tracker.take(describeDevice(disk))).commit(newGeneration());
  await tracker.untrack(describeDevice(disk));
  assert.equal(traced(), false);
});

test('a daemon is delayed until buffers overflow, then killed; the next one cleans up', async () => {
  const { child, ask } = await trackingChild();
  try {
    write(5);
    assert.equal(await ask('take'), '1 blocks');
    child.kill('SIGSTOP');
    sh(`dd if=/dev/zero of=${disk} bs=512 count=900 oflag=direct conv=notrunc status=none`);
    child.kill('SIGCONT');
    assert.match(await ask('take'), /dropped \d+ records/);
    assert.match(await ask('track'), /dropped \d+ records/);
    assert.equal(await ask('take'), '0 blocks');
    // While the old daemon lives it counts as another process.
    await assert.rejects(track(), /another process already traces/);
  } finally {
    await kill(child);
  }
  assert.equal(traced(), true);
  const { doubt } = await tracker.track(describeDevice(disk));
  assert.match(doubt ?? '', /daemon that tracked it before has ended/);
  write(7);
  const { dirty } = await tracker.take(describeDevice(disk));
  assert.deepEqual([...dirty.extents()], [{ offset: 7 * 4096, length: 4096 }]);
  await tracker.untrack(describeDevice(disk));
  // A record of ours does not turn the trace of another process into ours.
  await setUpTrace(disk, other);
  await assert.rejects(track(), /another process already traces/);
  assert.equal(traced(), true);
  await tearDownTrace(disk);
});

test('remains of a killed daemon are removed; those of a living one, and foreign ones, are not', async () => {
  const { child } = await trackingChild();
  try {
    assert.deepEqual(await removeLeftTraces(runDirectory), []);
    assert.equal(traced(), true);
  } finally {
    await kill(child);
  }
  assert.deepEqual(await removeLeftTraces(runDirectory), [disk]);
  assert.equal(traced(), false);
  await setUpTrace(disk, other);
  assert.deepEqual(await removeLeftTraces(runDirectory), []);
  assert.equal(traced(), true);
  await tearDownTrace(disk);
});

test('a device that changes its size, or is replaced under its old number', async (t) => {
  sh('modprobe loop');
  const loop = await makeLoop(t, { size: 8 * MiB });
  const device = describeDevice(loop.device);
  await tracker.track(device);
  (await tracker.take(device)).commit(newGeneration());
  sh(`truncate -s 10M ${loop.image}; losetup -c ${loop.device}`);
  await assert.rejects(tracker.take(device), /size in bytes was 8388608 and is 10485760/);
  const again = describeDevice(loop.device);
  assert.match((await tracker.track(again)).doubt ?? '', /size in bytes/);
  sh(
    `cp --sparse=always ${loop.image} ${loop.image}2; losetup -d ${loop.device}; losetup ${loop.device} ${loop.image}2`,
  );
  await assert.rejects(tracker.take(again), /disk sequence|place in sysfs/);
  await tracker.untrack(again);
});

test('a SCSI command that bypasses the block layer', async () => {
  sh(
    'modprobe virtio_scsi; modprobe sd_mod; for i in $(seq 50); do [ -b /dev/sda ] && break; sleep 0.1; done',
  );
  const device = describeDevice('/dev/sda');
  await tracker.track(device);
  (await tracker.take(device)).commit(newGeneration());
  writePastBlockLayer('/dev/sda', 4096);
  await assert.rejects(tracker.take(device), /passthrough/);
  await tracker.untrack(device);
});
