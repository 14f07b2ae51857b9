/**
 * Proves that tracking outlives the daemon while writes continue: stopped, killed by SIGKILL, upgraded to
 * another version and back. The next backup is right. It is an incremental if the pinned maps and programs
 * are those that the new daemon would have made. If they belong to another version or were removed, it is a
 * differential with the reason.
 *
 * Also proves that tracking can be removed with nothing left in the kernel, as a package's removal script
 * needs.
 *
 * Needs a kernel on which eBPF tracking works; skipped elsewhere.
 */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { TrackingDocument } from '../../src/api/tracking.ts';
import { trackingSupport } from '../../src/tracking/ebpf/support.ts';
import { assertNothingLeft, backUp, scratchFor } from '../helpers/backup.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { dattocli, runProgram, startDaemon, type TestDaemon, waitFor } from '../helpers/daemon.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { type FrozenProof, frozenProof } from '../helpers/frozen-proof.ts';
import { type LoadedThings, pinnedThings, stillLoaded } from '../helpers/loaded-programs.ts';
import { makeLoop } from '../helpers/loop.ts';
import { otherVersion } from '../helpers/other-version.ts';
import { startChurn, startStamper } from '../helpers/writers.ts';

const support = await trackingSupport();
const skip = support.supported ? false : support.why;
const size = 96 * MiB;

/** A filesystem under constant writes, and the daemon that backs it up. */
class Tracked {
  daemon: TestDaemon;
  readonly device: string;
  readonly mountPoint: string;
  readonly #target: readonly string[];
  readonly #proof: FrozenProof;

  private constructor(
    daemon: TestDaemon,
    device: string,
    mountPoint: string,
    target: readonly string[],
    proof: FrozenProof,
  ) {
    this.daemon = daemon;
    this.device = device;
    this.mountPoint = mountPoint;
    this.#target = target;
    this.#proof = proof;
  }

  static async begin(t: EndingTest): Promise<Tracked> {
    const image = join(scratchFor(t), 'image');
    const disk = await makeLoop(t, { size, filesystem: 'ext4', mkfsArgs: ['-b', '4096'], mount: true });
    const mountPoint = disk.mountPoint!;
    await fillWithFiles(mountPoint, 8 * MiB);
    await startStamper(t, mountPoint, { seed: 3, bytesPerSecond: MiB });
    await startChurn(t, mountPoint, 20);
    const proof = await frozenProof(t, { type: 'ext4', size, device: disk.device, image });
    const target = ['--device', disk.device, '--target', image];
    const tracked = new Tracked(
      await startDaemon({ tracking: true }),
      disk.device,
      mountPoint,
      target,
      proof,
    );
    atEnd(t, async () => {
      await tracked.daemon.stop();
    });
    await tracked.backUp('full');
    return tracked;
  }

  /**
   * Runs an incremental (or the first full). Asserts its kind, the reason if it is not an incremental, and
   * that it is right.
   */
  async backUp(kind: 'full' | 'incremental' | 'differential', reason?: RegExp): Promise<void> {
    const wish = kind === 'full' ? '--full' : '--incremental';
    const { status, code } = await backUp(this.daemon, [...this.#target, ...this.#proof.args], wish);
    const device = status.devices[0]!;
    assert.deepEqual(
      [status.state, status.error, device.kind, device.tracker],
      ['SUCCEEDED', null, kind, 'ebpf'],
      device.fallback_reason ?? '',
    );
    const said = status.warnings.map((warning) => warning.code).filter((each) => each !== 'CANNOT_CONVERGE');
    if (reason === undefined) assert.deepEqual([said, device.fallback_reason], [[], null]);
    else {
      assert.deepEqual([said, code], [['FELL_BACK'], 5]);
      assert.match(device.fallback_reason ?? '', reason);
    }
    await this.#proof.assertSame(`(${kind})`);
  }

  /**
   * Replaces an ended daemon by another one, after a MiB more was written. Returns the version of the new
   * daemon.
   */
  async next(entry?: string): Promise<string> {
    const before = this.#written();
    await waitFor('a MiB more is written', 60_000, () => this.#written() >= before + MiB);
    this.daemon = await startDaemon({
      paths: this.daemon,
      tracking: true,
      ...(entry === undefined ? {} : { entry }),
    });
    const { stdout } = await dattocli(['version', '--json'], this.daemon);
    return (JSON.parse(stdout) as { dattod: string }).dattod;
  }

  /** Returns the bytes that the kernel has written to the device. The file counts sectors of 512 bytes. */
  #written(): number {
    const fields = readFileSync(`/sys/block/${basename(this.device)}/stat`, 'latin1')
      .trim()
      .split(/\s+/);
    return Number(fields[6]) * 512;
  }

  async epoch(): Promise<string | undefined> {
    const { stdout } = await dattocli(['tracking', '--json'], this.daemon);
    const { devices } = JSON.parse(stdout) as TrackingDocument;
    return devices.find(({ device }) => device === this.device)?.epoch ?? undefined;
  }
}

test('a daemon that was stopped, killed, or of another version continues the epoch', { skip }, async (t) => {
  const tracked = await Tracked.begin(t);
  const epoch = await tracked.epoch();
  await tracked.daemon.end();
  const own = await tracked.next();
  await tracked.backUp('incremental');
  await tracked.daemon.kill();
  await tracked.next();
  await tracked.backUp('incremental');
  await tracked.daemon.end();
  assert.equal(await tracked.next(otherVersion(t, '99.0.0')), '99.0.0');
  await tracked.backUp('incremental');
  await tracked.daemon.kill();
  assert.equal(await tracked.next(), own);
  await tracked.backUp('incremental');
  assert.equal(await tracked.epoch(), epoch);
  await assertNothingLeft(tracked.daemon, { devices: [tracked.device], mountPoints: [tracked.mountPoint] });
});

test(
  'maps or programs of another version, or removed: a differential with the reason',
  { skip },
  async (t) => {
    const tracked = await Tracked.begin(t);
    const replacedBy = async (reason: RegExp, entry?: string): Promise<void> => {
      await tracked.daemon.end();
      await tracked.next(entry);
      await tracked.backUp('differential', reason);
    };
    const otherLayout = otherVersion(t, '98.0.0', [
      { file: 'src/tracking/ebpf/layout.ts', from: 'layoutVersion = 3', to: 'layoutVersion = 4' },
    ]);
    await replacedBy(
      /the maps have layout 3, of another version of the agent, and this one has 4/,
      otherLayout,
    );
    await replacedBy(/the maps have layout 4, of another version of the agent, and this one has 3/);
    const otherPrograms = otherVersion(t, '97.0.0', [
      {
        file: 'src/tracking/ebpf/programs/request.ts',
        from: 'enter(a, context',
        to: 'a.mov(0, 0); enter(a, context',
      },
    ]);
    await replacedBy(
      /programs that mark writes are of another version of the agent \(\d.*97\.0\.0/,
      otherPrograms,
    );
    await replacedBy(/programs that mark writes are of another version of the agent \(97\.0\.0/);

    await tracked.daemon.kill();
    rmSync(join(tracked.daemon.pinDirectory, 'request-block_rq_complete-1-link'));
    await tracked.next();
    await tracked.backUp('differential', /a program that marks its writes was detached/);
    await tracked.daemon.kill();
    rmSync(tracked.daemon.pinDirectory, { recursive: true });
    await tracked.next();
    await tracked.backUp('differential', /tracking was started again after the last backup/);
    await tracked.backUp('incremental');
  },
);

test(
  'dattod --remove-tracking: nothing is left in the kernel, and a running daemon is not disturbed',
  { skip },
  async (t) => {
    const tracked = await Tracked.begin(t);
    const { pinDirectory } = tracked.daemon;
    const things = await pinnedThings(pinDirectory);
    assert.deepEqual(
      ['prog', 'link'].map((kind) => things.filter((thing) => thing.startsWith(kind)).length),
      [6, 6],
    );
    assert.deepEqual(await stillLoaded(things), things);
    const remove = () => runProgram('src/bin/dattod.ts', ['--remove-tracking', ...tracked.daemon.arguments]);

    const refusal = await remove();
    assert.deepEqual([refusal.code, refusal.stdout], [1, '']);
    assert.match(refusal.stderr, /^dattod: dattod is already running \(pid \d+\) \(.*stop it first/);
    await tracked.backUp('incremental');

    // The daemon is killed, so that it did not clean up.
    await tracked.daemon.kill();
    const { stdout, code } = await remove();
    assert.equal(code, 0);
    assert.match(stdout, /^removed \/sys\/fs\/bpf\/\S+\/control$/m);
    assert.match(stdout, /^removed \S+\/request-block_rq_complete-0-link$/m);
    assert.ok(!existsSync(pinDirectory));
    assert.deepEqual(
      readdirSync('/sys/fs/bpf').filter((name) => pinDirectory.endsWith(name)),
      [],
    );
    await untilGone(things);
    assert.deepEqual(
      [await remove()].map(({ stdout: said, code: ended }) => [said, ended]),
      [['nothing of tracking was left in the kernel\n', 0]],
    );
    await tracked.next();
    await tracked.backUp('differential', /tracking was started again after the last backup/);
  },
);

test('dattocli tracking stop: the same by a running daemon', { skip }, async (t) => {
  const tracked = await Tracked.begin(t);
  const things = await pinnedThings(tracked.daemon.pinDirectory);
  assert.equal((await dattocli(['tracking', 'stop'], tracked.daemon)).code, 0);
  assert.ok(!existsSync(tracked.daemon.pinDirectory));
  await untilGone(things);
  await tracked.backUp('differential', /tracking was started again after the last backup/);
});

/** The kernel frees them a moment after their last name and descriptor are gone. */
function untilGone(things: LoadedThings): Promise<void> {
  return waitFor('programs, links and maps are gone', 10_000, async () => {
    return (await stillLoaded(things)).length === 0;
  });
}
