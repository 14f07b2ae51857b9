/** Steps on recovery points: a second copy of the vault, forget, prune, check, restore, a restore that is interrupted, mount. */
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { AgentError } from '../../src/base/errors.ts';
import { mountImage, unmountImage } from '../../src/restore/mount/mount.ts';
import { parseDestination } from '../../src/restore/target/acquire-destination.ts';
import { restoreToTarget } from '../../src/restore/target/to-target.ts';
import type { PointDevice } from '../../src/vault/points/point.ts';
import { dattocliHere } from '../helpers/dattocli-here.ts';
import { exec } from '../helpers/exec.ts';
import { differenceOf } from './expected.ts';
import { type Command, type Recorder, step } from './step.ts';
import type { VaultTarget, World } from './world.ts';

export function vaultSteps(recorder: Recorder): fc.Arbitrary<Command>[] {
  const anyVault = fc.constantFrom<VaultTarget>('vault', 'vault', 'copy');
  const anyNumber = fc.integer({ min: 0, max: 1000 });
  const hasPoints = (world: World, target: VaultTarget): boolean =>
    (target === 'vault' || world.copy !== undefined) && world.vaultAt(target).known.length > 0;

  const copy = fc.constant(
    step(recorder, {
      kind: 'copy the vault',
      needs: (world) => world.copy === undefined && hasPoints(world, 'vault'),
      run: (world) => world.copyVault(),
    }),
  );
  const forget = anyVault.map((target) =>
    step(recorder, {
      kind: 'forget and prune',
      details: target,
      needs: (world) => hasPoints(world, target),
      run: (world) => forgetAndPrune(world, target),
    }),
  );
  const check = anyVault.map((target) =>
    step(recorder, {
      kind: 'check the vault',
      details: target,
      needs: (world) => hasPoints(world, target),
      run: (world) => vaultCommand(world, target, 'vault', 'check'),
    }),
  );
  const restore = fc.tuple(anyVault, anyNumber).map(([target, number]) =>
    step(recorder, {
      kind: 'restore',
      details: `${target} ${number}`,
      needs: (world) => hasPoints(world, target),
      run: async (world) => {
        const chosen = await choosePoint(world, target, number);
        const to = join(world.scratch, 'restored');
        rmSync(to, { force: true });
        await restoreTo(world, chosen, to);
        const expected = world.vaultAt(target).expectedOf(chosen.id, chosen.device.path)!;
        assert.equal(await differenceOf(expected, to), undefined, 'what was restored is wrong');
      },
    }),
  );
  const interrupted = fc.tuple(anyVault, anyNumber).map(([target, number]) =>
    step(recorder, {
      kind: 'interrupt a restore',
      details: `${target} ${number}`,
      needs: (world) => hasPoints(world, target),
      run: (world) => interruptRestore(world, target, number),
    }),
  );
  const onB = fc.tuple(anyVault, anyNumber).map(([target, number]) =>
    step(recorder, {
      kind: 'restore over the other disk',
      details: `${target} ${number}`,
      needs: (world) => hasPoints(world, target) && world.disks.a.size === world.disks.b.size,
      run: async (world) => {
        const chosen = await choosePoint(world, target, number);
        const { b } = world.disks;
        if (chosen.device.size > b.size) return 'too large';
        await b.unmount();
        await restoreTo(world, chosen, b.device, { force: true });
        const expected = world.vaultAt(target).expectedOf(chosen.id, chosen.device.path)!;
        b.content = chosen.device.size === b.size ? expected.content : 'other';
        const path = join(world.scratch, 'restored');
        await b.copy(path);
        assert.equal(await differenceOf(expected, path), undefined, 'what was restored is wrong');
        return undefined;
      },
    }),
  );
  const mounted = fc.tuple(anyVault, anyNumber).map(([target, number]) =>
    step(recorder, {
      kind: 'mount a point in the place of its device',
      details: `${target} ${number}`,
      needs: (world) => hasPoints(world, target),
      run: (world) => mountInPlace(world, target, number),
    }),
  );
  return [copy, copy, copy, forget, forget, forget, check, restore, interrupted, interrupted, onB, mounted];
}

async function vaultCommand(world: World, target: VaultTarget, ...args: readonly string[]): Promise<void> {
  const vault = world.vaultAt(target);
  const places = ['--vault', vault.target, '--state-dir', vault.stateDirectory];
  const { code, out, err } = await dattocliHere([...args, ...places]);
  assert.equal(code, 0, `dattocli ${args.join(' ')} exited with ${code}: ${out}${err}`);
}

/**
 * Forgets and prunes. The newest right point of each device has to stay, whatever the devices have in common.
 */
export async function forgetAndPrune(world: World, target: VaultTarget): Promise<string> {
  const vault = world.vaultAt(target);
  const newest = new Map<string, string>();
  for (const id of vault.known) for (const device of vault.devicesOf(id)) newest.set(device, id);
  await vaultCommand(world, target, 'forget', '--keep-last', '1', '--grace', '0');
  const left = new Set((await vault.points()).map(({ id }) => id));
  for (const [device, id] of newest)
    assert.ok(left.has(id), `${id}, the newest point of ${device}, was forgotten`);
  const gone = vault.known.filter((id) => !left.has(id));
  for (const id of gone) vault.forgotten(id);
  await vaultCommand(world, target, 'vault', 'prune');
  return `${gone.length} forgotten`;
}

interface Chosen {
  readonly target: VaultTarget;
  readonly id: string;
  readonly device: PointDevice;
}

async function choosePoint(world: World, target: VaultTarget, number: number): Promise<Chosen> {
  const vault = world.vaultAt(target);
  const id = vault.known[number % vault.known.length]!;
  const point = (await vault.points()).find((each) => each.id === id);
  assert.ok(point !== undefined, `the point ${id} is not listed`);
  const paths = vault.devicesOf(id);
  return { target, id, device: point.devices.find(({ path }) => path === paths[number % paths.length])! };
}

function restoreTo(
  world: World,
  { target, id, device }: Chosen,
  to: string,
  { force = false, interrupt = false } = {},
): Promise<unknown> {
  const abort = new AbortController();
  return restoreToTarget({
    image: world.vaultAt(target).specOf(device),
    imageId: `${id} ${device.path}`,
    sectorSize: device.sector_size,
    to: parseDestination(to),
    threads: 1,
    unfinishedDirectory: join(world.scratch, 'unfinished'),
    signal: abort.signal,
    ...(force ? { force: to } : {}),
    ...(interrupt
      ? {
          onProgress: ({ written }) => {
            if (written > 0) abort.abort();
          },
        }
      : {}),
  });
}

/**
 * Interrupts a restore. The same command again finishes it, or is refused if the destination was formatted
 * since.
 */
async function interruptRestore(world: World, target: VaultTarget, number: number): Promise<string> {
  const chosen = await choosePoint(world, target, number);
  const to = join(world.scratch, 'restored');
  rmSync(to, { force: true });
  const failure = await failureOf(restoreTo(world, chosen, to, { interrupt: true }));
  if (failure === undefined) return 'it was over already';
  assert.equal(failure.code, 'CANCELLED', failure.message);
  if (number % 3 === 0) {
    await restoreTo(world, chosen, to);
    const expected = world.vaultAt(target).expectedOf(chosen.id, chosen.device.path)!;
    assert.equal(await differenceOf(expected, to), undefined, 'what was restored is wrong');
    return 'finished';
  }
  await exec('mkfs.ext4', ['-q', '-F', '-L', 'PRECIOUS', to]);
  const refusal = await failureOf(restoreTo(world, chosen, to));
  assert.equal(refusal?.code, 'TARGET_OCCUPIED', 'a filesystem was overwritten without --force');
  return 'refused after mkfs';
}

async function failureOf(work: Promise<unknown>): Promise<AgentError | undefined> {
  try {
    await work;
    return undefined;
  } catch (thrown) {
    if (thrown instanceof AgentError) return thrown;
    throw thrown;
  }
}

/** Mounts a point in the place of its device. A backup of that place must not use the point as its source. */
async function mountInPlace(world: World, target: VaultTarget, number: number): Promise<string> {
  const chosen = await choosePoint(world, target, number);
  const disk = Object.values(world.disks).find(({ device }) => device === chosen.device.path)!;
  const { mounted, mountPoint } = disk;
  const { runDirectory } = world;
  await disk.unmount();
  mkdirSync(mountPoint, { recursive: true });
  let said: string;
  const failure = await failureOf(
    mountImage({
      image: world.vaultAt(target).specOf(chosen.device),
      subject: { point: chosen.id, device: chosen.device.path },
      directory: mountPoint,
      sectorSize: chosen.device.sector_size,
      runDirectory,
      method: 'nbdfuse',
      over: true,
    }),
  );
  if (failure === undefined)
    try {
      const refusal = await world.tryBackup(mountPoint, join(world.scratch, 'images', 'file', 'of-a-point'));
      assert.equal(refusal?.code, 'SOURCE_IS_BACKUP', 'a recovery point was backed up as its device');
      said = 'refused';
    } finally {
      await unmountImage(runDirectory, mountPoint);
    }
  // A filesystem that raw writes have damaged, or no filesystem.
  else {
    assert.ok(failure.code === 'MOUNT_FAILED' || failure.code === 'NOT_SUPPORTED', failure.message);
    said = failure.code;
  }
  if (mounted !== 'no') await disk.mount(mounted);
  return said;
}
