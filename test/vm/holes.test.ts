/**
 * One test for each hole of an obvious form of tracking (docs/formats/tracking.md lists them). In these
 * situations some trackers would miss writes: programs of another type, single copies of a program, or
 * trackers of only the sectors that an event itself shows.
 */
import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { Assembler } from '../../src/linux/bpf/assembler.ts';
import { Btf } from '../../src/linux/bpf/btf.ts';
import { attachTracing, loadTracingProgram } from '../../src/linux/bpf/programs.ts';
import { freezeFilesystem, thawFilesystem } from '../../src/linux/ioctl.ts';
import { newGeneration } from '../../src/tracking/generation.ts';
import { EbpfTracker } from '../../src/tracking/ebpf/tracker.ts';
import type { TrackedDevice } from '../../src/tracking/tracker.ts';
import { changedBlocks, describeDevice, nvmeDisk, sh, snapshot } from './guest.ts';
import { dirtyWithoutEnds } from './unseen-ends.ts';

let tracker: EbpfTracker;
before(async () => {
  sh('modprobe dm-mod; modprobe loop; modprobe xfs; modprobe ext4');
  console.log(`# lockdown: ${readFileSync('/sys/kernel/security/lockdown', 'latin1').trim()}`);
  tracker = await EbpfTracker.open();
  // This device stays tracked. The programs are removed with the last device, and the emulated machine takes
  // ten seconds to load them.
  await tracker.track(describeDevice('/dev/vdc'));
});
after(() => tracker.stop());

/** Returns the extents that were marked since the last call. */
async function extents(device: TrackedDevice): Promise<{ offset: number; length: number }[]> {
  const taken = await tracker.take(device);
  taken.commit(newGeneration());
  return [...taken.dirty.extents()];
}

/** Starts writes of 4 KiB, one request each. */
function manyWrites(path: string, count: number): ChildProcess {
  return spawn(
    'dd',
    ['if=/dev/zero', `of=${path}`, 'bs=4k', `count=${count}`, 'oflag=direct', 'conv=notrunc'],
    {
      stdio: 'ignore',
    },
  );
}

const ended = (child: ChildProcess) => new Promise((resolve) => child.once('exit', resolve));

test('H1: other BPF programs and map updates run when the interrupt comes', async () => {
  const device = describeDevice('/dev/vdd');
  await tracker.track(device);
  const loads = [1, 2].map(() =>
    spawn(process.execPath, [join(import.meta.dirname, 'bpf-load.ts')], { stdio: 'ignore' }),
  );
  const slow = new Assembler()
    .mov(8, 0)
    .label('turn')
    .alu('add', 8, 1)
    .jump('lt', 8, 2000, 'turn')
    .mov(0, 0)
    .exit();
  const entry = new Btf(readFileSync('/sys/kernel/btf/vmlinux')).tracepoint('sys_enter')!;
  const program = await loadTracingProgram('busy', slow.assemble(), entry.id, 'GPL');
  const link = attachTracing(program);
  try {
    await extents(device);
    await ended(manyWrites('/dev/vdd', 3000));
    assert.deepEqual(await extents(device), [{ offset: 0, length: 3000 * 4096 }]);
  } finally {
    closeSync(link);
    closeSync(program);
    for (const load of loads) load.kill('SIGKILL');
    await tracker.untrack(device);
  }
});

test('H2: devices that split bios show only their last piece at the end', async () => {
  sh(`printf '0 100000 linear /dev/vda 2048\\n100000 100000 linear /dev/vdb 4096\\n' | dmsetup create two --noudevsync
printf '0 204800 striped 2 128 /dev/vda 300000 /dev/vdb 300000\\n' | dmsetup create striped --noudevsync; dmsetup mknodes`);
  for (const name of ['two', 'striped']) {
    const device = describeDevice(`/dev/mapper/${name}`);
    await tracker.track(device);
    await extents(device);
    // 512 KiB around the end of the first target.
    sh(
      `dd if=/dev/urandom of=${device.path} bs=512k count=1 seek=$((100000 * 512 - 262144)) oflag=direct,seek_bytes conv=notrunc status=none`,
    );
    assert.deepEqual(await extents(device), [{ offset: 100_000 * 512 - 262_144, length: 524_288 }]);
    await tracker.untrack(device);
    sh(`dmsetup remove --noudevsync ${name}`);
  }
});

test('H3: one discard carries many pieces', async () => {
  const path = await nvmeDisk('one path');
  sh(`export TEST_DIR=/ TEST_DEV=/ QA_CHECK_FS=1; dd if=/dev/urandom of=${path} bs=1M count=90 oflag=direct status=none
mkfs.xfs -q -f -K ${path}; mount -t xfs ${path} /mnt; cd /mnt
for i in $(seq 1 60); do dd if=/dev/urandom of=f$i bs=64k count=4 status=none; done; sync
for i in 3 9 15 21 27 33 39 45; do rm f$i; done; sync`);
  const device = describeDevice(path);
  await tracker.track(device);
  const fd = openSync('/mnt', 'r');
  await freezeFilesystem(fd);
  await extents(device);
  const copy = snapshot(path);
  await thawFilesystem(fd);
  sh('fstrim /mnt');
  await freezeFilesystem(fd);
  const { dirty } = await tracker.take(device);
  const changed = changedBlocks(copy, path);
  await thawFilesystem(fd);
  closeSync(fd);
  sh('umount /mnt');
  assert.ok(changed.length > 400, `only ${changed.length} blocks changed`);
  assert.deepEqual(
    changed.filter((offset) => !dirty.has(offset / dirty.unit)),
    [],
  );
  await tracker.untrack(device);
});

test('H4: events nest in their own program, from a task, a softirq and an interrupt', async () => {
  sh(
    'mkfs.ext4 -q -F /dev/vda; mkdir -p /under; mount /dev/vda /under; truncate -s 96M /under/image; dd if=/dev/zero of=/under/image bs=1M count=20 conv=notrunc status=none; sync; losetup /dev/loop0 /under/image',
  );
  const loop = describeDevice('/dev/loop0');
  const disk = describeDevice('/dev/vdd');
  for (const device of [loop, disk]) await tracker.track(device);
  for (const device of [loop, disk]) await extents(device);
  await Promise.all([manyWrites('/dev/loop0', 3000), manyWrites('/dev/vdd', 3000)].map(ended));
  for (const device of [loop, disk])
    assert.deepEqual(await extents(device), [{ offset: 0, length: 3000 * 4096 }], device.path);
  for (const device of [loop, disk]) await tracker.untrack(device);
  sh('losetup -d /dev/loop0; umount /under');
});

test('H5: the head of NVMe multipath has no requests of its own', async () => {
  const device = describeDevice(await nvmeDisk('two paths'));
  await tracker.track(device);
  await extents(device);
  sh(`dd if=/dev/urandom of=${device.path} bs=64k count=3 seek=10 oflag=direct conv=notrunc status=none
blkdiscard -o $((40 * 1048576)) -l 1048576 ${device.path}`);
  assert.deepEqual(await extents(device), [
    { offset: 655_360, length: 196_608 },
    { offset: 40 * 1048576, length: 1048576 },
  ]);
  await tracker.untrack(device);
});

test('H6: the end of a request is invisible', async () => {
  const device = describeDevice('/dev/vdd');
  // There are more writes than requests. So earlier writes are marked when the addresses of their requests
  // are used again.
  const dirty = await dirtyWithoutEnds('/sys/fs/bpf/unseen', device, async () => {
    await ended(manyWrites('/dev/vdd', 1500));
  });
  assert.deepEqual([...dirty.extents()], [{ offset: 0, length: 1500 * 4096 }]);
});
