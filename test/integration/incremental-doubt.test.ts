/**
 * Proves that an incremental that may miss changes never succeeds silently. It becomes a differential or a
 * full, with the reason in the job, in backupstatus and in exit code 5, and its image is right. With
 * --no-fallback it is an error that changes nothing. The backup after that is an incremental again.
 *
 * The tracker is test/helpers/shadow-tracker.ts, which tests can control. Everything else is real.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import type { JobStatus } from '../../src/api/job-status.ts';
import { assertNothingLeft, backUp, backUpWell, daemonFor, refused, scratchFor } from '../helpers/backup.ts';
import type { EndingTest } from '../helpers/cleanup.ts';
import { dattocli } from '../helpers/daemon.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { exec } from '../helpers/exec.ts';
import { fillWithFiles } from '../helpers/files.ts';
import { assertSameFiles, assertSameUsed, assertWhole } from '../helpers/image-proof.ts';
import { type LoopDisk, makeLoop, mountDevice, unmount } from '../helpers/loop.ts';

const whole = { after };
const scratch = scratchFor(whole);
const shadow = scratchFor(whole);
const daemon = await daemonFor(whole, {
  entry: 'test/helpers/dattod-shadow.ts',
  environment: { DATTO_SHADOW: shadow },
  tracking: true,
});
const server = await startDattosrv(whole, ['--create']);
const size = 64 * MiB;
let number = 0;

/** A mounted filesystem, backed up by a full and an incremental, with a later change. */
class Backed {
  readonly disk: LoopDisk;
  readonly name: string;
  /** A copy of the image after the full. */
  readonly olderImage: string;
  #refusedOnce = false;

  private constructor(disk: LoopDisk, name: string) {
    this.disk = disk;
    this.name = name;
    this.olderImage = join(scratch, `${name}.older`);
  }

  static async make(t: EndingTest): Promise<Backed> {
    const disk = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
    const backed = new Backed(disk, `doubt-${++number}`);
    writeFileSync(backed.image, '');
    truncateSync(backed.image, size);
    await fillWithFiles(backed.mountPoint, 8 * MiB);
    await backUpWell(daemon, backed.target);
    copyFileSync(backed.image, backed.olderImage);
    await backed.change('first');
    const { devices } = await backUpWell(daemon, backed.target, '--incremental');
    assert.deepEqual([devices[0]?.kind, devices[0]?.tracker], ['incremental', 'test']);
    await backed.proven();
    await backed.change('second');
    return backed;
  }

  get mountPoint(): string {
    return this.disk.mountPoint!;
  }

  get target(): string[] {
    return ['--device', this.disk.device, '--target', server.uriOf(this.name)];
  }

  get image(): string {
    return join(server.directory, this.name);
  }

  /** Returns the file that controls the tracker. */
  steering(what: string): string {
    const [device] = readdirSync('/sys/block').filter((name) => `/dev/${name}` === this.disk.device);
    return join(shadow, `${readFileSync(`/sys/block/${device ?? ''}/dev`, 'latin1').trim()}.${what}`);
  }

  /** Returns the folder of its chain. */
  get chain(): string {
    const chains = join(daemon.stateDirectory, 'chains');
    const [found] = readdirSync(chains).filter((id) =>
      readFileSync(join(chains, id, 'chain.json'), 'utf8').includes(`/${this.name}?`),
    );
    return join(chains, found ?? 'none');
  }

  async change(what: string): Promise<void> {
    await exec('dd', [
      ...['if=/dev/urandom', `of=${join(this.mountPoint, 'large-0')}`, 'bs=4k', 'count=20', 'conv=notrunc'],
      ...[`seek=${what.length * 17}`, 'status=none'],
    ]);
    writeFileSync(join(this.mountPoint, `new-${what}`), what);
    rmSync(join(this.mountPoint, 'zeros'), { force: true });
    await exec('sync', ['-f', this.mountPoint]);
  }

  async proven(): Promise<void> {
    await assertWhole('ext4', this.image, 'frozen');
    await assertSameFiles('ext4', this.image, this.mountPoint, scratch);
  }

  /** Returns everything that a refused start may not change. */
  picture(): string {
    const hash = createHash('sha256').update(readFileSync(this.image));
    const chains = join(daemon.stateDirectory, 'chains');
    for (const id of readdirSync(chains).sort())
      for (const file of readdirSync(join(chains, id)).sort())
        hash.update(`${id}/${file} `).update(readFileSync(join(chains, id, file)));
    return hash.digest('hex');
  }

  /**
   * Asserts that an incremental becomes this kind for this reason. The first time it also asserts that
   * --no-fallback changes nothing.
   */
  async inDoubt(kind: JobStatus['kind'], reason: RegExp, more: readonly string[] = []): Promise<void> {
    const args = [...this.target, ...more];
    const first = !this.#refusedOnce;
    this.#refusedOnce = true;
    if (first) await this.#refusesWithoutFallback(kind, reason, args);

    const { status, code } = await backUp(daemon, args, '--incremental');
    assert.deepEqual([status.state, status.error, code], ['SUCCEEDED', null, 5]);
    assert.deepEqual([status.kind, status.devices[0]?.kind], ['incremental', kind]);
    assert.match(status.devices[0]?.fallback_reason ?? '', reason);
    assert.deepEqual(
      status.warnings.map((warning) => warning.code),
      ['FELL_BACK'],
    );
    if (first) {
      const shown = await dattocli(['backupstatus', status.uuid], daemon);
      assert.match(shown.stdout, new RegExp(`warning FELL_BACK: ${kind} instead: `));
      assert.match(shown.stdout, reason);
    }
    await this.proven();
  }

  async #refusesWithoutFallback(kind: string, reason: RegExp, args: readonly string[]): Promise<void> {
    const before = this.picture();
    const refusal = await refused(
      daemon,
      ['startbackup', '--incremental', '--wait', '--no-fallback', ...args],
      'CHAIN_IN_DOUBT',
    );
    assert.match(refusal.message, new RegExp(`would need a ${kind}: `));
    assert.match(refusal.message, reason);
    assert.equal(this.picture(), before, 'a refused start changed something');
  }

  async fineAgain(): Promise<void> {
    await this.change('third');
    const { devices } = await backUpWell(daemon, this.target, '--incremental');
    assert.equal(devices[0]?.kind, 'incremental');
    await this.proven();
    await assertNothingLeft(daemon, { devices: [this.disk.device], mountPoints: [this.mountPoint] });
  }
}

test('the tracker may have missed writes: a differential', async (t) => {
  const backed = await Backed.make(t);
  writeFileSync(backed.steering('end'), '7 events were lost');
  await backed.inDoubt('differential', /7 events were lost|tracking was started again after the last backup/);
  await backed.change('without');
  await backed.inDoubt('differential', /tracking was turned off \(--tracker none\)/, ['--tracker', 'none']);
  await backed.change('refused');
  writeFileSync(backed.steering('refuse'), 'this kernel is too old');
  await backed.inDoubt(
    'differential',
    /no tracker records the writes to it \(test: this kernel is too old\)/,
  );
  rmSync(backed.steering('refuse'));
  await backed.change('once more');
  await backed.inDoubt('differential', /nothing tracked the device at the last backup/);
  await backed.fineAgain();
});

test('the target may have changed: a full', async (t) => {
  const backed = await Backed.make(t);
  copyFileSync(backed.olderImage, backed.image);
  await backed.inDoubt('full', /the target does not hold what the last backup left there/);
  await backed.change('larger');
  truncateSync(backed.image, size + MiB);
  await backed.inDoubt('full', /the target has \d+ bytes now and had 67108864/);
  await backed.change('other');
  const other = await makeLoop(t, { size, filesystem: 'ext4', mount: true });
  await backUpWell(daemon, ['--device', other.device, ...backed.target.slice(2)]);
  await backed.inDoubt('full', /no backup of this device to this target has been completed yet/);
  await backed.fineAgain();
});

test('the device may be another one: a full', async (t) => {
  const backed = await Backed.make(t);
  const uuidOf = async () =>
    (await exec('blkid', ['-p', '-o', 'value', '-s', 'UUID', backed.disk.device])).stdout.trim();
  const setUuid = async (uuid: string) => {
    await unmount(backed.mountPoint);
    await exec('e2fsck', ['-fp', backed.disk.device], { allow: [1] });
    await exec('tune2fs', ['-U', uuid, backed.disk.device]);
    await mountDevice(backed.disk.device, backed.mountPoint);
  };
  const first = await uuidOf();
  await setUuid('random');
  const second = await uuidOf();
  await backed.inDoubt('full', new RegExp(`the filesystem has the UUID "${second}" now and had "${first}"`));
  await setUuid(first);
  await backed.inDoubt('full', /no backup of this device to this target has been completed yet/);
  await backed.change('resized');
  truncateSync(backed.image, size + 4 * MiB);
  truncateSync(backed.disk.image, size + 4 * MiB);
  await exec('losetup', ['--set-capacity', backed.disk.device]);
  await backed.inDoubt('full', /the device has 71303168 bytes now and had 67108864/);
  await backed.fineAgain();
});

test('the record of the target is damaged, wrong or gone: a full', async (t) => {
  const backed = await Backed.make(t);
  const inChain = (name: string) => join(backed.chain, name);
  const flip = (path: string) => {
    const bytes = readFileSync(path);
    bytes[bytes.length - 3]! ^= 1;
    writeFileSync(path, bytes);
  };
  const damages: readonly [() => void, RegExp][] = [
    [() => flip(inChain('pending')), /damaged/],
    [() => rmSync(inChain('pending')), /damaged/],
    [() => rmSync(inChain('fingerprints')), /damaged/],
    [() => truncateSync(inChain('fingerprints'), statSync(inChain('fingerprints')).size - 16), /damaged/],
    [
      () => writeFileSync(inChain('fingerprints'), Buffer.alloc(statSync(inChain('fingerprints')).size, 9)),
      /does not hold/,
    ],
    [() => writeFileSync(inChain('chain.json'), '{"version": 1'), /damaged/],
    [() => rmSync(backed.chain, { recursive: true }), /no backup of this device to this target has been/],
  ];
  for (const [number, [damage, reason]] of damages.entries()) {
    await backed.change('x'.repeat(number));
    damage();
    await backed.inDoubt('full', reason);
  }
  await backed.fineAgain();
});

for (const where of ['between the passes', 'inside the freeze'] as const)
  test(`tracking ends during the job, ${where}: the device is compared, and the next is a differential`, async (t) => {
    const backed = await Backed.make(t);
    const end = backed.steering(where === 'inside the freeze' ? 'end-frozen' : 'end-later');
    writeFileSync(end, 'a program was detached');
    const reference = join(scratch, 'reference');
    const { status, code } = await backUp(
      daemon,
      [
        ...backed.target,
        '--frozen-hook',
        await copyHook(backed.disk.device, reference),
        '--max-freeze',
        '10s',
      ],
      '--incremental',
    );
    rmSync(end, { force: true });
    assert.deepEqual([status.state, status.error, code], ['SUCCEEDED', null, 5]);
    assert.deepEqual(
      status.warnings.map((warning) => warning.code),
      ['TRACKING_LOST'],
    );
    assert.match(status.warnings[0]!.message, /a program was detached/);
    assert.equal(status.devices[0]?.tracker, 'none');
    assert.ok((await assertSameUsed('ext4', reference, backed.image, size)) > 8 * MiB);
    await backed.proven();
    await backed.change('after');
    await backed.inDoubt('differential', /nothing tracked the device at the last backup/);
    await backed.fineAgain();
  });

async function copyHook(device: string, to: string): Promise<string> {
  const path = join(scratch, 'copy-hook');
  writeFileSync(
    path,
    `#!/bin/sh\nexec dd if=${device} of=${to} bs=1M iflag=direct conv=sparse status=none\n`,
    { mode: 0o755 },
  );
  await exec('test', ['-x', path]);
  return path;
}
