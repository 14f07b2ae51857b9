/**
 * Proves which events end an epoch and which do not. The events: the tracker's process killed, its programs
 * detached, its maps of another version, devices resized, replaced, or written by commands that are passed
 * through. It is one file, since the emulated machine takes ten seconds to load the programs.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { AgentError } from '../../src/base/errors.ts';
import { newGeneration } from '../../src/tracking/generation.ts';
import { EbpfTracker, type EbpfTrackerOptions } from '../../src/tracking/ebpf/tracker.ts';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import type { TrackedDevice } from '../../src/tracking/tracker.ts';
import { describeDevice, sh } from './guest.ts';
import { sendWrite } from './passthrough.ts';

const pins = '/sys/fs/bpf/dattod';
let tracker: EbpfTracker;

/** Opens the tracker again, like another process would. */
async function restart(options: EbpfTrackerOptions = {}): Promise<void> {
  await tracker.close();
  tracker = await EbpfTracker.open(options);
}

/** Returns the extents that a write of `count` 4 KiB blocks at block `at` marks. */
const blocks = (at: number, count: number) => [{ offset: at * 4096, length: count * 4096 }];

function write(path: string, at: number, count: number): void {
  sh(`dd if=/dev/urandom of=${path} bs=4k seek=${at} count=${count} oflag=direct conv=notrunc status=none`);
}

async function extents(device: TrackedDevice): Promise<unknown[]> {
  const taken = await tracker.take(device);
  const found = [...taken.dirty.extents()];
  taken.commit(newGeneration());
  return found;
}

const endedBy = (reason: RegExp) => (thrown: unknown) => {
  assert.ok(thrown instanceof AgentError);
  assert.equal(thrown.code, 'EPOCH_ENDED');
  assert.match(thrown.message, reason);
  return true;
};

before(async () => {
  sh('modprobe dm-mod; modprobe loop');
  tracker = await EbpfTracker.open();
  // This device stays tracked. The programs are removed with the last device, and the emulated machine takes
  // ten seconds to load them.
  await tracker.track(describeDevice('/dev/vdc'));
});
after(() => tracker.stop());

test('the support check reports support and leaves nothing behind', async () => {
  const support = await trackingSupport();
  assert.equal(support.supported, true, support.why);
});

test('partitions and their disk are tracked at the same time, each at its own offsets', async () => {
  sh(
    `printf 'label: gpt\\nstart=4097,size=20000\\nstart=40000,size=20000\\n' | sfdisk -q --no-reread /dev/vda; blockdev --rereadpt /dev/vda`,
  );
  const disk = describeDevice('/dev/vda');
  const first = describeDevice('/dev/vda1');
  const second = describeDevice('/dev/vda2');
  for (const device of [second, disk, first]) await tracker.track(device);
  for (const device of [disk, first, second]) await extents(device);
  write('/dev/vda1', 10, 2);
  assert.deepEqual(await extents(first), blocks(10, 2));
  assert.deepEqual(await extents(second), []);
  // 4097 sectors and 80 more, which begin inside a 4 KiB block of the disk.
  assert.deepEqual(await extents(disk), blocks(522, 3));
  write('/dev/vda2', 0, 1);
  assert.deepEqual(await extents(second), blocks(0, 1));
  assert.deepEqual(await extents(disk), blocks(5000, 1));
  assert.deepEqual(await extents(first), []);

  // One of three is no longer tracked; the others continue.
  await tracker.untrack(disk);
  write('/dev/vda2', 3, 1);
  assert.deepEqual(await extents(second), blocks(3, 1));
  await assert.rejects(tracker.take(disk), endedBy(/not tracked/));
  assert.equal((await tracker.track(disk)).doubt, undefined);
  write('/dev/vda1', 0, 1);
  assert.deepEqual(await extents(disk), blocks(512, 2));
  for (const device of [disk, first, second]) await tracker.untrack(device);
});

test('taken blocks come again until they are committed, together with new ones', async () => {
  const device = describeDevice('/dev/vdb');
  await tracker.track(device);
  write('/dev/vdb', 7, 1);
  const first = await tracker.take(device);
  write('/dev/vdb', 9, 1);
  const second = await tracker.take(device);
  assert.deepEqual([...second.dirty.extents()], [...blocks(7, 1), ...blocks(9, 1)]);
  // This commit is too late, because the second take includes the blocks of the first one.
  first.commit(newGeneration());
  assert.equal(tracker.state(device)?.dirtyBytes, 8192);
  second.commit(newGeneration());
  assert.equal(tracker.state(device)?.dirtyBytes, 0);
  assert.deepEqual(await extents(device), []);
});

test('a process killed between take and commit has lost nothing, and tracking continues without it', async () => {
  const device = describeDevice('/dev/vdb');
  const { epoch } = await tracker.track(device);
  await extents(device);
  await tracker.close();
  const child = spawn(process.execPath, [join(import.meta.dirname, 'taker.ts'), '/dev/vdb'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const [line] = (await once(child.stdout, 'data')) as [Buffer];
  assert.equal(line.toString().trim(), 'taken 100 to 102');
  child.kill('SIGKILL');
  await once(child, 'exit');
  write('/dev/vdb', 200, 1);
  tracker = await EbpfTracker.open();
  assert.deepEqual(
    { ...(await tracker.track(device)), generation: '' },
    { epoch, generation: '', doubt: undefined },
  );
  assert.deepEqual(await extents(device), [...blocks(100, 3), ...blocks(200, 1)]);
  assert.deepEqual(await extents(device), []);
});

test('a second process is refused the same pins', async () => {
  await assert.rejects(EbpfTracker.open(), { code: 'DEVICE_BUSY' });
});

test("another UUID, or a device that differs from the caller's description, ends the epoch", async () => {
  const device = describeDevice('/dev/vdb', 'one');
  assert.match((await tracker.track(device)).doubt ?? '', /UUID was {2}and is one/);
  await assert.rejects(tracker.take({ ...device, uuid: 'two' }), endedBy(/UUID was one and is two/));
  await assert.rejects(tracker.take({ ...device, size: 4096 }), endedBy(/size in bytes/));
  await assert.rejects(tracker.track({ ...device, size: 4096 }), { code: 'DEVICE_GONE' });
});

test('a program detached by hand ends the epoch of the next process', async () => {
  const device = describeDevice('/dev/vdb');
  await tracker.track(device);
  await tracker.close();
  rmSync(join(pins, 'request-block_rq_complete-1-link'));
  tracker = await EbpfTracker.open();
  write('/dev/vdb', 1, 1);
  await assert.rejects(tracker.take(device), endedBy(/detached/));
  assert.match((await tracker.track(device)).doubt ?? '', /detached/);
  write('/dev/vdb', 2, 1);
  assert.deepEqual(await extents(device), blocks(2, 1));
});

test('maps of another layout are not changed but replaced', async () => {
  const device = describeDevice('/dev/vdb');
  await tracker.track(device);
  const { openPin } = await import('../../src/linux/bpf/pins.ts');
  const { mapIntoMemory } = await import('../../src/linux/bpf/mapped.ts');
  const map = mapIntoMemory(openPin(join(pins, `range-${device.major}:${device.minor}`))!, 4096);
  new Uint32Array(map.memory)[260 / 4] = 99;
  map.unmap();
  await restart();
  await assert.rejects(tracker.take(device), endedBy(/layout 99, of another version of the agent/));
  assert.match((await tracker.track(device)).doubt ?? '', /layout 99/);
  write('/dev/vdb', 5, 1);
  assert.deepEqual(await extents(device), blocks(5, 1));
});

test('a loop device attached again, or grown, counts as another device', async () => {
  sh('truncate -s 64M /tmp/loop.img; losetup /dev/loop0 /tmp/loop.img');
  try {
    const device = describeDevice('/dev/loop0');
    await tracker.track(device);
    write('/dev/loop0', 4, 1);
    assert.deepEqual(await extents(device), blocks(4, 1));
    sh('losetup -d /dev/loop0; losetup /dev/loop0 /tmp/loop.img');
    await assert.rejects(tracker.take(device), endedBy(/disk sequence was|place in sysfs was/));
    const again = describeDevice('/dev/loop0');
    assert.match((await tracker.track(again)).doubt ?? '', /was \S+/);
    await extents(again);
    sh('truncate -s 80M /tmp/loop.img; losetup -c /dev/loop0');
    await assert.rejects(tracker.take(again), endedBy(/size in bytes was 67108864 and is 83886080/));
    await tracker.untrack(again);
  } finally {
    sh('losetup -d /dev/loop0; rm /tmp/loop.img');
  }
});

test('a command passed through to the disk ends the epoch', async () => {
  const device = describeDevice('/dev/sda');
  await tracker.track(device);
  write('/dev/sda', 3, 1);
  assert.deepEqual(await extents(device), blocks(3, 1));
  sendWrite('/dev/sda', 8000);
  await assert.rejects(tracker.take(device), endedBy(/passed through/));
  assert.match((await tracker.track(device)).doubt ?? '', /passed through/);
  assert.deepEqual(await extents(device), []);
  await tracker.untrack(device);
});

test('a table of device-mapper that grows, and one with another disk, end the epoch', async () => {
  sh(`printf '0 100000 linear /dev/vdc 0\\n' | dmsetup create lin --noudevsync; dmsetup mknodes`);
  const device = describeDevice('/dev/mapper/lin');
  await tracker.track(device);
  write('/dev/mapper/lin', 6, 2);
  assert.deepEqual(await extents(device), blocks(6, 2));
  sh(`printf '0 120000 linear /dev/vdc 0\\n' | dmsetup load lin; dmsetup resume --noudevsync lin`);
  await assert.rejects(tracker.take(device), endedBy(/size in bytes/));
  const grown = describeDevice('/dev/mapper/lin');
  await tracker.track(grown);
  assert.deepEqual(await extents(grown), []);
  sh(
    `dmsetup remove --noudevsync lin; printf '0 120000 linear /dev/vdc 8\\n' | dmsetup create lin --noudevsync; dmsetup mknodes`,
  );
  await assert.rejects(tracker.take(grown), endedBy(/was \S+/));
  sh('dmsetup remove --noudevsync lin');
  await assert.rejects(tracker.take(grown), endedBy(/block device \S+ does not exist any more/));
  await tracker.untrack(grown);
});

test('tracking ends and is refused if another driver passes writes down unchanged', async () => {
  sh(
    `modprobe raid0; printf '0 100000 linear /dev/vdc 0\\n' | dmsetup create lower --noudevsync; dmsetup mknodes`,
  );
  const device = describeDevice('/dev/mapper/lower');
  try {
    await tracker.track(device);
    assert.deepEqual(await extents(device), []);
    sh(`dd if=/dev/zero of=/dev/mapper/lower bs=1M count=2 oflag=direct status=none; dd if=/dev/zero of=/dev/vdd bs=1M count=2 oflag=direct status=none
mdadm --create /dev/md0 --run --level=0 --chunk=64 --raid-devices=2 /dev/mapper/lower /dev/vdd </dev/null >&2`);
    await assert.rejects(tracker.take(device), endedBy(/md0, which lies on it, are not seen/));
    await assert.rejects(tracker.track(device), { code: 'NOT_SUPPORTED', message: /md0, which lies on/ });
    await tracker.untrack(device);
  } finally {
    sh('mdadm --stop /dev/md0; dmsetup remove --noudevsync lower');
  }
});

test('discards of many GiB in one request are marked from end to end', async () => {
  sh('truncate -s 20G /tmp/big.img; losetup /dev/loop0 /tmp/big.img');
  const discardMost = async (path: string): Promise<void> => {
    const device = describeDevice(path);
    await tracker.track(device);
    sh(`blkdiscard -o 4096 -l $((15 * 1024 * 1024 * 1024 + 12288)) ${path}`);
    assert.deepEqual(await extents(device), [{ offset: 4096, length: 15 * 1024 ** 3 + 12288 }]);
    await tracker.untrack(device);
  };
  try {
    await discardMost('/dev/loop0');
    sh(
      `printf "0 $((18 * 1024 * 1024 * 2)) linear /dev/loop0 8\\n" | dmsetup create big --noudevsync; dmsetup mknodes`,
    );
    await discardMost('/dev/mapper/big');
  } finally {
    sh('dmsetup remove --noudevsync big || true; losetup -d /dev/loop0; rm /tmp/big.img');
  }
});

test('without room for writes in flight the epoch ends', async () => {
  await tracker.stop();
  tracker = await EbpfTracker.open({ inFlightEntries: 4 });
  // A disk that answers late keeps the writes in flight.
  sh(
    `modprobe dm-delay || true; printf '0 100000 delay /dev/vdc 0 100\\n' | dmsetup create slow --noudevsync; dmsetup mknodes`,
  );
  const device = describeDevice('/dev/mapper/slow');
  await tracker.track(device);
  assert.deepEqual(await extents(device), []);
  writeFileSync(
    '/tmp/many',
    `for i in $(seq 1 16); do dd if=/dev/zero of=/dev/mapper/slow bs=4k count=4 seek=$((i * 50)) oflag=direct conv=notrunc status=none & done; wait`,
  );
  sh('bash /tmp/many');
  await assert.rejects(tracker.take(device), endedBy(/could not be remembered/));
  await tracker.untrack(device);
  sh('dmsetup remove --noudevsync slow');
});
