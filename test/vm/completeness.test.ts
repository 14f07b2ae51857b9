/**
 * Completeness: whatever changes a device is marked. Each round copies the device, runs random operations, takes the
 * dirty map, and compares: a block that changed and is not marked is a failure. While a filesystem is mounted, both
 * copies are made in a freeze. From the environment:
 *
 *     VM_SEED    of the first round (default 1)      VM_ROUNDS   for each stack (default 1)
 *     VM_STACKS  parts of names, by commas           VM_STYLE    bits or bytes
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { freezeFilesystem, thawFilesystem } from '../../src/linux/ioctl.ts';
import { EbpfTracker } from '../../src/tracking/ebpf/tracker.ts';
import type { Style } from '../../src/tracking/ebpf/layout.ts';
import type { TrackedDevice } from '../../src/tracking/tracker.ts';
import { changedBlocks, describeDevice, sh, snapshot } from './guest.ts';
import { deviceOperation, fileOperation, makeFilesystem, pick, seeded, seedFiles } from './operations.ts';
import { loadStackModules, raise, type Stack, stacks } from './stacks.ts';

const firstSeed = Number(process.env['VM_SEED'] ?? 1);
const rounds = Number(process.env['VM_ROUNDS'] ?? 1);
const wanted = (process.env['VM_STACKS'] ?? '').split(',');
const style = process.env['VM_STYLE'] as Style | undefined;
const mountPoint = '/mnt';
const total = { rounds: 0, changed: 0, marked: 0 };

let tracker: EbpfTracker;
let busy: ChildProcess;

before(async () => {
  loadStackModules();
  sh(`dd if=/dev/urandom of=/tmp/noise bs=1M count=8 status=none`);
  tracker = await EbpfTracker.open(style === undefined ? {} : { style });
  // What makes other forms of tracking lose events: maps that are updated, and programs that run.
  busy = spawn(process.execPath, [join(import.meta.dirname, 'bpf-load.ts')], { stdio: 'inherit' });
});

after(async () => {
  busy.kill('SIGKILL');
  await tracker.stop();
  console.log(
    `# ${total.rounds} rounds: ${total.changed} blocks of 4 KiB changed, ${total.marked} marked, ratio ${(total.marked / Math.max(1, total.changed)).toFixed(2)}`,
  );
});

for (const stack of stacks.filter((each) => wanted.some((part) => each.name.includes(part))))
  test(`every changed block is marked: ${stack.name}`, async () => {
    const device = await raise(stack);
    try {
      fillWithNoise(device);
      const tracked = describeDevice(device);
      await tracker.track(tracked);
      for (let round = 0; round < rounds; round++)
        await runRound(stack, device, tracked, firstSeed * 1000 + stacks.indexOf(stack) * 50 + round);
      await tracker.untrack(tracked);
    } finally {
      sh(`umount ${mountPoint} 2>/dev/null || true; ${stack.down}`);
    }
  });

async function runRound(stack: Stack, device: string, tracked: TrackedDevice, seed: number): Promise<void> {
  const random = seeded(seed);
  const filesystem = pick(random, ['ext4', 'xfs', undefined] as const);
  if (filesystem !== undefined)
    sh(
      `${makeFilesystem(filesystem, device)}; mount -t ${filesystem} ${device} ${mountPoint}; ${seedFiles(mountPoint)}`,
    );
  const scripts = Array.from({ length: 2 + Math.floor(random() * 6) }, () =>
    filesystem === undefined
      ? deviceOperation(random, device, tracked.size, stack.discard)
      : fileOperation(random, filesystem, mountPoint, device),
  );
  const mounted = filesystem !== undefined;
  let copy: Buffer = Buffer.alloc(0);
  await still(mounted, async () => {
    (await tracker.take(tracked)).commit();
    copy = snapshot(device);
  });
  for (const script of scripts)
    try {
      sh(script);
    } catch (thrown) {
      throw new Error(`seed ${seed}, ${stack.name}: ${script}`, { cause: thrown });
    }
  await still(mounted, async () => {
    const { dirty } = await tracker.take(tracked);
    const changed = changedBlocks(copy, device);
    const missed = changed.filter((offset) => !dirty.has(offset / dirty.unit));
    total.rounds++;
    total.changed += changed.length;
    total.marked += dirty.bytes() / 4096;
    assert.deepEqual(
      missed.slice(0, 20),
      [],
      `seed ${seed}, ${stack.name}: ${missed.length} of ${changed.length} changed blocks are not marked after\n${scripts.join('\n')}`,
    );
  });
  if (mounted) sh(`umount ${mountPoint}`);
}

/** Frozen where mounted, else synced. */
async function still(mounted: boolean, work: () => Promise<void>): Promise<void> {
  if (!mounted) {
    sh('sync');
    return work();
  }
  const fd = openSync(mountPoint, 'r');
  await freezeFilesystem(fd);
  try {
    await work();
  } finally {
    await thawFilesystem(fd);
    closeSync(fd);
  }
}

/** So that a discard or zeroes change something. */
function fillWithNoise(device: string): void {
  sh(
    `for i in $(seq 0 11); do dd if=/tmp/noise of=${device} bs=1M seek=$((i * 8)) oflag=direct conv=notrunc status=none || true; done; sync`,
  );
}
