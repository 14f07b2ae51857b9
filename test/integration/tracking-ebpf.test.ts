/**
 * Tests eBPF tracking on the running kernel, if it supports that: loop devices, whole and in partitions, and
 * random rounds.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { newGeneration } from '../../src/tracking/generation.ts';
import { EbpfTracker } from '../../src/tracking/ebpf/tracker.ts';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { makeLoop, umount } from '../helpers/loop.ts';
import { describeDevice, sh } from '../vm/guest.ts';
import { fillWithNoise, runRound } from '../vm/rounds.ts';
import { dirtyWithoutEnds } from '../vm/unseen-ends.ts';

const support = await trackingSupport();
const skip = support.supported ? false : `${support.why}; ${support.help}`;

async function openTracker(
  t: EndingTest,
): Promise<{ tracker: EbpfTracker; directory: string; pins: string }> {
  const directory = mkdtempSync(join(tmpdir(), 'tracking-'));
  atEnd(t, () => rmSync(directory, { recursive: true }));
  const pins = join(directory, 'bpf/dattod');
  // A bpffs is mounted there, because there was none.
  atEnd(t, () => umount(join(directory, 'bpf')));
  const tracker = await EbpfTracker.open({ pinDirectory: pins });
  atEnd(t, () => tracker.stop());
  return { tracker, directory, pins };
}

test('partitions of a loop device, across a restart of the tracker, and detached', { skip }, async (t) => {
  const { tracker, pins } = await openTracker(t);
  const disk = await makeLoop(t, {
    size: 64 * MiB,
    partitions: 'label: gpt\nstart=4097,size=40000\nstart=50000,size=40000\n',
  });
  const second = describeDevice(disk.partition(2));
  const { epoch } = await tracker.track(second);
  const generation = newGeneration();
  (await tracker.take(second)).commit(generation);
  await tracker.close();
  // No tracker runs to see these writes.
  sh(`dd if=/dev/urandom of=${second.path} bs=4k seek=7 count=2 oflag=direct conv=notrunc status=none`);
  sh(`dd if=/dev/urandom of=${disk.partition(1)} bs=4k seek=7 count=2 oflag=direct conv=notrunc status=none`);
  const next = await EbpfTracker.open({ pinDirectory: pins });
  atEnd(t, () => next.stop());
  assert.deepEqual(await next.track(second), { epoch, generation, doubt: undefined });
  const { dirty } = await next.take(second);
  assert.deepEqual([...dirty.extents()], [{ offset: 28672, length: 8192 }]);

  assert.ok(readdirSync(pins).some((name) => name.includes('block_rq_complete')));
  await next.untrack(second);
  assert.deepEqual(
    readdirSync(pins).filter((name) => name.includes('block_rq_complete')),
    [],
    'programs stay attached although nothing is tracked',
  );
  const again = await next.track(second);
  assert.equal(again.doubt, undefined);

  // The device is detached, as at a shutdown. Its map still shows the writes to it.
  sh(`dd if=/dev/urandom of=${second.path} bs=4k seek=9 count=1 oflag=direct conv=notrunc status=none`);
  const there = next.remains(second);
  assert.deepEqual([there?.gone, there?.lost, there?.epoch], [undefined, undefined, again.epoch]);
  await disk.remove();
  const remains = next.remains(second);
  assert.match(remains?.gone ?? '', /block device .* does not exist|its place in sysfs/);
  assert.deepEqual([remains?.lost, remains?.epoch], [undefined, again.epoch]);
  assert.deepEqual([...remains!.dirty.extents()], [{ offset: 36864, length: 4096 }]);
  await next.untrack(second);
  assert.equal(next.remains(second), undefined);
});

test(
  'more ranges of one disk than there is room for: refused, and the others continue',
  { skip },
  async (t) => {
    const { tracker } = await openTracker(t);
    const parts = Array.from({ length: 65 }, (_, part) => `start=${2048 + part * 2048},size=2048\n`).join('');
    const disk = await makeLoop(t, { size: 72 * MiB, partitions: `label: gpt\n${parts}` });
    const devices = Array.from({ length: 65 }, (_, part) => describeDevice(disk.partition(part + 1)));
    for (const device of devices.slice(0, 64)) await tracker.track(device);
    await assert.rejects(tracker.track(devices[64]!), {
      code: 'NOT_SUPPORTED',
      message: /64 ranges of disk \S+ are tracked already/,
    });
    for (const [part, device] of devices.slice(0, 64).entries()) {
      (await tracker.take(device)).commit(newGeneration());
      if (part % 9 !== 0) continue;
      sh(`dd if=/dev/urandom of=${device.path} bs=4k seek=2 count=1 oflag=direct conv=notrunc status=none`);
      assert.deepEqual([...(await tracker.take(device)).dirty.extents()], [{ offset: 8192, length: 4096 }]);
    }
    await tracker.untrack(devices[0]!);
    assert.equal((await tracker.track(devices[64]!)).doubt, undefined);
  },
);

test('requests without a visible end count as dirty', { skip }, async (t) => {
  const directory = `/sys/fs/bpf/unseen-${process.pid}`;
  atEnd(t, () => rmSync(directory, { recursive: true, force: true }));
  const disk = await makeLoop(t, { size: 16 * MiB });
  const device = describeDevice(disk.device);
  const dirty = await dirtyWithoutEnds(directory, device, () => {
    sh(`dd if=/dev/urandom of=${device.path} bs=4k count=1500 seek=5 oflag=direct conv=notrunc status=none`);
  });
  assert.deepEqual([...dirty.extents()], [{ offset: 5 * 4096, length: 1500 * 4096 }]);
});

test('every changed block is marked, in random rounds', { skip }, async (t) => {
  const { tracker, directory } = await openTracker(t);
  const disk = await makeLoop(t, { size: 96 * MiB });
  const mountPoint = join(directory, 'mnt');
  sh(`mkdir ${mountPoint}; dd if=/dev/urandom of=${directory}/noise bs=1M count=8 status=none`);
  atEnd(t, () => void sh(`umount ${mountPoint} 2>/dev/null || true`));
  const device = describeDevice(disk.device);
  fillWithNoise(device, join(directory, 'noise'));
  await tracker.track(device);
  const total = { changed: 0, marked: 0 };
  for (let seed = 1; seed <= 12; seed++) {
    const counts = await runRound({ tracker, device, name: 'loop', discard: true, mountPoint, seed });
    total.changed += counts.changed;
    total.marked += counts.marked;
  }
  t.diagnostic(`${total.changed} blocks changed, ${total.marked} marked`);
});
