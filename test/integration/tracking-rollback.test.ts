/**
 * Proves with the real tracker that a state directory that lacks the latest takes from the tracker's maps
 * never leads to a wrong incremental. The cases are an older copy put back within one boot, and an older copy
 * of a single file. In a third case a second daemon uses another state directory with the same pins in
 * between.
 *
 * This is proven for images and for vaults. Each job becomes a differential with the reason, its image is
 * right, and the next is an incremental again. Also proves that two daemons cannot use one pin directory at
 * the same time.
 *
 * Needs a kernel on which eBPF tracking works; skipped elsewhere.
 */
import assert from 'node:assert/strict';
import {
  copyFileSync,
  cpSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { DeviceStatus } from '../../src/api/job-status.ts';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { assertNothingLeft, backUp, scratchFor } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { daemonPaths, dattocli, runProgram, startDaemon, type TestDaemon } from '../helpers/daemon.ts';
import { exec } from '../helpers/exec.ts';
import { makeLoop } from '../helpers/loop.ts';
import { vaultFor } from '../helpers/vault.ts';

const support = await trackingSupport();
const skip = support.supported ? false : support.why;
const size = 12 * MiB;
const notInStep =
  /does not match the blocks taken from the tracker since \(generation .*, the tracker has [0-9a-f]{16}\)/;

/**
 * A device without a filesystem, and daemons that back it up. All of the device is used, so that each of its
 * bytes counts.
 */
class Tracked {
  daemon: TestDaemon;
  readonly device: string;
  readonly scratch: string;

  private constructor(daemon: TestDaemon, device: string, scratch: string) {
    this.daemon = daemon;
    this.device = device;
    this.scratch = scratch;
  }

  static async make(t: EndingTest): Promise<Tracked> {
    const scratch = scratchFor(t, { memory: true });
    const { device } = await makeLoop(t, { size });
    const tracked = new Tracked(await startDaemon({ tracking: true }), device, scratch);
    atEnd(t, async () => {
      await tracked.daemon.stop();
    });
    await tracked.write(0, size);
    return tracked;
  }

  /** Writes random bytes past the page cache. */
  async write(offset: number, length: number, from = '/dev/urandom'): Promise<void> {
    await exec('dd', [
      ...[`if=${from}`, `of=${this.device}`, 'bs=64k', `seek=${offset / 65536}`, `count=${length / 65536}`],
      ...[
        `skip=${from === '/dev/urandom' ? 0 : offset / 65536}`,
        'oflag=direct',
        'conv=notrunc',
        'status=none',
      ],
    ]);
  }

  content(): Buffer {
    return readFileSync(this.device);
  }

  get state(): string {
    return this.daemon.stateDirectory;
  }

  copyOfState(): string {
    const copy = join(this.scratch, 'copy');
    rmSync(copy, { recursive: true, force: true });
    cpSync(this.state, copy, { recursive: true });
    return copy;
  }

  /** Replaces the state directory by another copy. */
  putBack(copy: string): void {
    rmSync(this.state, { recursive: true });
    cpSync(copy, this.state, { recursive: true });
  }

  async restart(): Promise<void> {
    await this.daemon.end();
    await this.startAgain();
  }

  async startAgain(): Promise<void> {
    this.daemon = await startDaemon({ paths: this.daemon, tracking: true });
  }

  /**
   * Runs a backup, with `--full` the first time. The full verification shows only that the target holds the
   * data that was sent.
   */
  async backUp(
    target: string,
    kind: 'full' | 'incremental' | 'differential',
    daemon = this.daemon,
  ): Promise<DeviceStatus> {
    const args = ['--device', this.device, '--target', target, '--verify', 'full', '--tracker', 'ebpf'];
    const { status, code } = await backUp(daemon, args, kind === 'full' ? '--full' : '--incremental');
    const device = status.devices[0]!;
    assert.deepEqual(
      [status.state, status.error, device.kind, device.tracker],
      ['SUCCEEDED', null, kind, 'ebpf'],
      device.fallback_reason ?? '',
    );
    const said = status.warnings.map((warning) => warning.code).filter((each) => each !== 'EVERYTHING_USED');
    assert.deepEqual(
      [said, code],
      [kind === 'differential' ? ['FELL_BACK'] : [], 5],
      device.fallback_reason ?? '',
    );
    if (kind === 'differential') {
      assert.match(device.fallback_reason ?? '', notInStep);
      const shown = await dattocli(['backupstatus', status.uuid], daemon);
      assert.match(
        shown.stdout,
        /warning FELL_BACK: differential instead: the record of the last backup does not match/,
      );
    }
    return device;
  }

  same(image: string, what: string): void {
    assert.ok(readFileSync(image).equals(this.content()), `${image} is not the device ${what}`);
  }

  async leavesNothing(): Promise<void> {
    await assertNothingLeft(this.daemon, { devices: [this.device] });
  }
}

function images(tracked: Tracked): [string, string] {
  return [join(tracked.scratch, 'image-a'), join(tracked.scratch, 'image-b')];
}

test('an older copy of the state directory put back: both images are compared, once', { skip }, async (t) => {
  const tracked = await Tracked.make(t);
  const [a, b] = images(tracked);
  await tracked.backUp(a, 'full');
  await tracked.backUp(b, 'full');
  await tracked.write(MiB, MiB);
  const before = join(tracked.scratch, 'before');
  writeFileSync(before, tracked.content());
  await tracked.backUp(a, 'incremental');
  await tracked.backUp(b, 'incremental');
  await tracked.daemon.end();
  const copy = tracked.copyOfState();
  await tracked.startAgain();
  await tracked.write(3 * MiB, 2 * MiB);
  await tracked.backUp(b, 'incremental');
  // Restores the content at the time of the copy. So the fingerprints that come back describe data that B no
  // longer holds.
  await tracked.write(4 * MiB, MiB, before);
  await tracked.daemon.end();
  tracked.putBack(copy);
  await tracked.startAgain();
  await tracked.backUp(a, 'differential');
  tracked.same(a, 'after the state directory was put back');
  await tracked.backUp(b, 'differential');
  tracked.same(b, 'after the state directory was put back');
  await tracked.write(5 * MiB, MiB);
  const { bytes_sent: sent } = await tracked.backUp(a, 'incremental');
  assert.equal(sent, MiB);
  await tracked.backUp(b, 'incremental');
  for (const image of [a, b]) tracked.same(image, 'in the end');
  await tracked.leavesNothing();
});

test("the same during the daemon's run, for single files, and by a kill", { skip }, async (t) => {
  const tracked = await Tracked.make(t);
  const [a, b] = images(tracked);
  await tracked.backUp(a, 'full');
  await tracked.backUp(b, 'full');
  const chains = join(tracked.state, 'chains');
  const chainOf = (target: string): string =>
    join(
      chains,
      readdirSync(chains).find((id) =>
        readFileSync(join(chains, id, 'chain.json'), 'utf8').includes(target),
      )!,
    );
  for (const names of [['pending'], ['chain.json'], ['pending', 'chain.json', 'fingerprints']]) {
    const copy = tracked.copyOfState();
    await tracked.write(7 * MiB, MiB);
    await tracked.backUp(b, 'incremental');
    const chain = chainOf(a);
    for (const name of names) copyFileSync(join(chain.replace(tracked.state, copy), name), join(chain, name));
    await tracked.backUp(a, 'differential');
    tracked.same(a, `after an older ${names.join(', ')}`);
  }
  // A killed daemon keeps the connection between its state and the maps.
  await tracked.write(9 * MiB, MiB);
  await tracked.daemon.kill();
  await tracked.startAgain();
  for (const image of [a, b]) {
    await tracked.backUp(image, 'incremental');
    tracked.same(image, 'after a kill');
  }
  // The record as an older version of the agent wrote it.
  const path = join(chainOf(a), 'chain.json');
  const { generations, ...old } = JSON.parse(readFileSync(path, 'utf8')) as { generations: string[] };
  assert.ok(generations.length > 0);
  writeFileSync(path, JSON.stringify(old));
  await tracked.backUp(a, 'differential');
  tracked.same(a, 'after a record of an older version');
  await tracked.leavesNothing();
});

test('vaults: an older copy of the state directory put back', { skip }, async (t) => {
  const tracked = await Tracked.make(t);
  const vaults = [await vaultFor(t, tracked.state), await vaultFor(t, tracked.state)];
  const same = async (number: number, what: string): Promise<void> => {
    const image = join(tracked.scratch, 'point');
    const point = (await vaults[number]!.points()).at(-1)!;
    await vaults[number]!.dump(point.devices[0]!, image);
    truncateSync(image, size);
    tracked.same(image, what);
  };
  for (const { target } of vaults) await tracked.backUp(target, 'full');
  await tracked.daemon.end();
  const copy = tracked.copyOfState();
  await tracked.startAgain();
  await tracked.write(3 * MiB, 2 * MiB);
  await tracked.backUp(vaults[1]!.target, 'incremental');
  await tracked.daemon.end();
  tracked.putBack(copy);
  await tracked.startAgain();
  for (const [number, { target }] of vaults.entries()) {
    await tracked.backUp(target, 'differential');
    await same(number, 'after the state directory was put back');
  }
  await tracked.write(6 * MiB, MiB);
  for (const [number, { target }] of vaults.entries()) {
    await tracked.backUp(target, 'incremental');
    await same(number, 'in the end');
  }
  await tracked.leavesNothing();
});

test(
  'two daemons never share a pin directory, and takes by the other one are noticed',
  { skip },
  async (t) => {
    const tracked = await Tracked.make(t);
    const [a, b] = images(tracked);
    await tracked.backUp(a, 'full');
    const own = daemonPaths();
    atEnd(t, () => rmSync(own.directory, { recursive: true, force: true }));
    const { pinDirectory } = tracked.daemon;
    const paths = { ...own, pinDirectory, arguments: [...own.arguments, '--pin-dir', pinDirectory] };
    const refusal = await runProgram('src/bin/dattod.ts', ['--foreground', ...paths.arguments]);
    assert.deepEqual([refusal.code, refusal.stdout], [1, '']);
    assert.equal(
      refusal.stderr,
      `dattod: Another process uses the pins in ${pinDirectory} (stop the other dattod, or give this one its own --pin-dir)\n`,
    );
    await tracked.write(2 * MiB, MiB);

    // The lock ends with the process, however the process ends.
    await tracked.daemon.kill();
    const other = await startDaemon({ paths, tracking: true });
    try {
      await tracked.backUp(b, 'full', other);
      await tracked.write(3 * MiB, MiB);
      await tracked.backUp(b, 'incremental', other);
      tracked.same(b, 'by the other daemon');
    } finally {
      await other.end();
    }
    await tracked.startAgain();
    await tracked.backUp(a, 'differential');
    tracked.same(a, 'after another daemon took from the maps');
    await tracked.leavesNothing();
  },
);
