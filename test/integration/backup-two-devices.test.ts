/**
 * Proves that all devices of a job finish at one instant. A writer writes N to A and then N to B, durably,
 * and the images never show B ahead of A. This also holds if B's filesystem lies on a loop file on A, in any
 * order of the two devices. There the freezes have to be nested correctly.
 */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MiB } from '../../src/base/bytes.ts';
import { assertNothingLeft, backUp, daemonFor, scratchFor } from '../helpers/backup.ts';
import { startDattosrv } from '../helpers/dattosrv.ts';
import { fillWithFiles } from '../helpers/files.ts';
import {
  assertSameUsed,
  assertWhole,
  type FilesystemName,
  withImageMounted,
} from '../helpers/image-proof.ts';
import { type LoopDisk, makeLoop } from '../helpers/loop.ts';
import { trackedDaemonFor } from '../helpers/tracked-daemon.ts';
import { startAlternating, startChurn } from '../helpers/writers.ts';

const whole = { after };
const scratch = scratchFor(whole);
const daemon = await daemonFor(whole);
const server = await startDattosrv(whole, ['--create']);

interface Member {
  readonly name: string;
  readonly type: FilesystemName;
  readonly size: number;
  readonly disk: LoopDisk;
}

async function numberIn(type: FilesystemName, image: string): Promise<number> {
  let number = NaN;
  await withImageMounted(type, image, join(scratch, 'mnt'), async () => {
    number = Number(await readFile(join(scratch, 'mnt', 'counter'), 'utf8'));
  });
  return number;
}

/** Backs up both in one job while the writer runs. Returns the numbers in the images. */
async function backUpBoth(members: readonly Member[]): Promise<Map<string, number>> {
  const args = members.flatMap(({ disk, name, size }) => [
    ...['--device', disk.device, '--target', server.uriOf(`${name}@${size}`)],
  ]);
  const { status, code, stderr } = await backUp(daemon, [...args, '--max-freeze', '20s']);
  assert.deepEqual([status.state, status.error, status.warnings, code], ['SUCCEEDED', null, [], 0], stderr);
  assert.equal(status.devices.length, 2);
  for (const device of status.devices) assert.ok((device.freeze_ms ?? 0) > 0, JSON.stringify(device));
  const numbers = new Map<string, number>();
  for (const { name, type } of members) {
    const image = join(server.directory, name);
    await assertWhole(type, image, 'frozen');
    numbers.set(name, await numberIn(type, image));
  }
  return numbers;
}

for (const types of [
  ['ext4', 'ext4'],
  ['xfs', 'ext4'],
] as const)
  test(`two ${types.join(' and ')} filesystems stop at one instant`, async (t) => {
    const members: Member[] = [];
    for (const [index, type] of types.entries()) {
      const size = type === 'xfs' ? 320 * MiB : (96 + 8 * index) * MiB;
      const disk = await makeLoop(t, { size, filesystem: type, mount: true });
      await fillWithFiles(disk.mountPoint!, 8 * MiB);
      members.push({ name: `${types.join('-')}-${index}`, type, size, disk });
    }
    const [a, b] = members;
    const counters = members.map(({ disk }) => join(disk.mountPoint!, 'counter'));
    const writer = await startAlternating(t, counters[0]!, counters[1]!);
    for (let round = 0; round < 2; round++) {
      // The devices are named in either order.
      const numbers = await backUpBoth(round === 0 ? [a!, b!] : [b!, a!]);
      const [first = 0, second = 0] = [numbers.get(a!.name), numbers.get(b!.name)];
      t.diagnostic(`A ${first}, B ${second}`);
      assert.ok(first === second || first === second + 1, `A has ${first}, B has ${second}`);
      assert.ok(first > 0);
      writer.assertRunning();
      assert.ok(Number(await readFile(counters[1]!, 'utf8')) > second, 'the writer goes on after the thaw');
    }
    await writer.stop();
    await assertNothingLeft(daemon, {
      devices: members.map(({ disk }) => disk.device),
      mountPoints: members.map(({ disk }) => disk.mountPoint!),
    });
  });

test('a filesystem on a loop file on the other one: the inner one is frozen first, in any order', async (t) => {
  const outer = await makeLoop(t, { size: 288 * MiB, filesystem: 'ext4', mount: true });
  const inner = await makeLoop(t, {
    size: 64 * MiB,
    filesystem: 'ext4',
    mount: true,
    directory: outer.mountPoint!,
  });
  await fillWithFiles(inner.mountPoint!, 8 * MiB);
  const a: Member = { name: 'outer', type: 'ext4', size: 288 * MiB, disk: outer };
  const b: Member = { name: 'inner', type: 'ext4', size: 64 * MiB, disk: inner };
  const counters = [a, b].map(({ disk }) => join(disk.mountPoint!, 'counter'));
  const writer = await startAlternating(t, counters[0]!, counters[1]!);
  for (const order of [
    [a, b],
    [b, a],
  ]) {
    const numbers = await backUpBoth(order);
    const [first = 0, second = 0] = [numbers.get('outer'), numbers.get('inner')];
    t.diagnostic(`outer ${first}, inner ${second}`);
    assert.ok(first === second || first === second + 1, `outer has ${first}, inner has ${second}`);
    // The inner filesystem's file, in the image of the outer one, equals the inner one's image.
    await withImageMounted('ext4', join(server.directory, 'outer'), join(scratch, 'outer'), async () => {
      const file = inner.image.replace(outer.mountPoint!, join(scratch, 'outer'));
      await assertSameUsed('ext4', join(server.directory, 'inner'), file, b.size);
    });
  }
  await writer.stop();
  await assertNothingLeft(daemon, {
    devices: [outer.device, inner.device],
    mountPoints: [outer.mountPoint!, inner.mountPoint!],
  });
});

test('freezes of one job that have a filesystem in common take turns', async (t) => {
  // When tracking begins, it freezes each device once more while the others are mapped.
  const tracked = await trackedDaemonFor(t);
  const outer = await makeLoop(t, { size: 128 * MiB, filesystem: 'ext4', mount: true });
  const inner = await makeLoop(t, {
    ...{ size: 32 * MiB, filesystem: 'ext4', mount: true, directory: outer.mountPoint! },
  });
  const writers = [await startChurn(t, outer.mountPoint!), await startChurn(t, inner.mountPoint!)];
  const pairs = [outer, inner].map(({ device }, i) => [
    ...['--device', device, '--target', join(scratch, `turns-${i}`)],
  ]);
  for (const order of [pairs, pairs.toReversed()]) {
    const { status, stderr } = await backUp(tracked, order.flat());
    assert.deepEqual([status.state, status.error], ['SUCCEEDED', null], stderr);
    for (const i of pairs.keys()) await assertWhole('ext4', join(scratch, `turns-${i}`), 'frozen');
  }
  for (const writer of writers) await writer.stop();
});
