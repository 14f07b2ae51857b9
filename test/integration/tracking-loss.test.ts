/**
 * Proves with the real tracker that an incremental never succeeds silently if writes may have been missed.
 * The cases: no room for writes in flight, another boot, the device attached again or resized, programs
 * detached. Each becomes a differential or a full with the reason, and the next is an incremental again.
 *
 * Losses that this kernel does not allow are in test/vm/. The engine's part, with a tracker that tests
 * control, is in incremental-doubt.test.ts. Needs a kernel on which eBPF tracking works; skipped elsewhere.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { KiB, MiB } from '../../src/base/bytes.ts';
import type { BackupKind } from '../../src/api/job-status.ts';
import { mapIntoMemory } from '../../src/linux/bpf/mapped.ts';
import { openPin } from '../../src/linux/bpf/pins.ts';
import { pageSize } from '../../src/tracking/ebpf/layout.ts';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { assertNothingLeft, backUp, scratchFor } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { startDaemon, type TestDaemon } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameFiles, assertWhole } from '../helpers/image-proof.ts';
import { type LoopDisk, makeLoop, mountDevice, reattachLoop, unmount } from '../helpers/loop.ts';

const support = await trackingSupport();
const skip = support.supported ? false : support.why;
const size = 64 * MiB;

class Backed {
  daemon: TestDaemon;
  readonly disk: LoopDisk;
  readonly image: string;
  readonly #scratch: string;
  readonly #entry: string | undefined;

  private constructor(daemon: TestDaemon, disk: LoopDisk, scratch: string, entry: string | undefined) {
    this.daemon = daemon;
    this.disk = disk;
    this.#scratch = scratch;
    this.image = join(scratch, 'image');
    this.#entry = entry;
  }

  static async make(t: EndingTest, entry?: string): Promise<Backed> {
    const scratch = scratchFor(t);
    const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
    await fillWithFiles(disk.mountPoint!, 8 * MiB);
    const daemon = await startDaemon({ tracking: true, ...(entry === undefined ? {} : { entry }) });
    const backed = new Backed(daemon, disk, scratch, entry);
    atEnd(t, async () => {
      await backed.daemon.stop();
    });
    await backed.backUp('full');
    await backed.change();
    return backed;
  }

  get mountPoint(): string {
    return this.disk.mountPoint!;
  }

  async change(): Promise<void> {
    writeFileSync(join(this.mountPoint, 'changed'), randomBytes(300 * KiB));
    await exec('sync', ['-f', this.mountPoint]);
  }

  async restart(): Promise<void> {
    await this.daemon.end();
    const entry = this.#entry;
    this.daemon = await startDaemon({
      paths: this.daemon,
      tracking: true,
      ...(entry === undefined ? {} : { entry }),
    });
  }

  /** Runs an incremental (the first time: a full) and asserts its actual kind and the reason. */
  async backUp(kind: BackupKind, reason?: RegExp): Promise<void> {
    const args = ['--device', this.disk.device, '--target', this.image];
    const { status, code } = await backUp(
      this.daemon,
      args,
      kind === 'full' && reason === undefined ? '--full' : '--incremental',
    );
    const device = status.devices[0]!;
    assert.deepEqual(
      [status.state, status.error, device.kind, device.tracker],
      ['SUCCEEDED', null, kind, 'ebpf'],
      device.fallback_reason ?? '',
    );
    assert.equal(code, reason === undefined ? 0 : 5);
    assert.match(device.fallback_reason ?? 'none', reason ?? /^none$/);
    await assertWhole('ext4', this.image, 'frozen');
    await assertSameFiles('ext4', this.image, this.mountPoint, this.#scratch);
  }

  async fineAgain(): Promise<void> {
    await this.change();
    await this.backUp('incremental');
    await assertNothingLeft(this.daemon, { devices: [this.disk.device], mountPoints: [this.mountPoint] });
  }
}

test('no room for writes in flight: a differential', { skip }, async (t) => {
  const backed = await Backed.make(t, 'test/helpers/dattod-small.ts');
  await exec('fio', [
    ...['--name=many', `--directory=${backed.mountPoint}`, '--rw=randwrite', '--bs=4k', '--size=4m'],
    ...['--ioengine=libaio', '--iodepth=64', '--direct=1', '--numjobs=2'],
  ]);
  await backed.backUp('differential', /writes on their way could not be remembered: \d+/);
});

test('maps of another boot: a differential', { skip }, async (t) => {
  const backed = await Backed.make(t);
  await backed.daemon.kill();
  const [pin] = readdirSync(backed.daemon.pinDirectory).filter((name) => name.startsWith('range-'));
  const map = mapIntoMemory(openPin(join(backed.daemon.pinDirectory, pin!))!, pageSize);
  const page = Buffer.from(map.memory);
  const at = page.indexOf('"bootId":"') + '"bootId":"'.length;
  assert.ok(at > 100);
  page.write('00000000', at);
  map.unmap();
  await backed.restart();
  await backed.change();
  await backed.backUp('differential', /its boot was 00000000-\S+ and is \S+/);
  await backed.fineAgain();
});

test('the device was attached again in between: a differential; resized: a full', { skip }, async (t) => {
  const backed = await Backed.make(t);
  const { device, image } = backed.disk;
  await unmount(backed.mountPoint);
  await reattachLoop(device, image);
  await mountDevice(device, backed.mountPoint);
  await backed.change();
  await backed.backUp('differential', /its (disk sequence|place in sysfs) was .* and is /);
  await backed.fineAgain();

  await unmount(backed.mountPoint);
  for (const file of [image, backed.image]) truncateSync(file, size + 4 * MiB);
  await exec('losetup', ['--set-capacity', device]);
  await mountDevice(device, backed.mountPoint);
  await backed.change();
  await backed.backUp('full', /the device has 71303168 bytes now and had 67108864/);
  await backed.fineAgain();
});

test(
  "a program detached, and all pins removed, during the daemon's run: a differential",
  { skip },
  async (t) => {
    const backed = await Backed.make(t);
    const { pinDirectory } = backed.daemon;
    // The tracker continues while the daemon has it open.
    rmSync(join(pinDirectory, 'request-block_rq_complete-0-link'));
    await backed.backUp('incremental');
    await backed.restart();
    await backed.change();
    await backed.backUp('differential', /a program that marks its writes was detached/);
    await backed.fineAgain();
    rmSync(pinDirectory, { recursive: true });
    await backed.restart();
    await backed.change();
    await backed.backUp('differential', /tracking was started again after the last backup/);
    await backed.fineAgain();
  },
);
