/**
 * Kills processes by SIGKILL at every write to a vault in a directory, during backup, prune and repair. The
 * next command works, and no point is damaged.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { checkVault } from '../../src/vault/check/check-vault.ts';
import { repairVault } from '../../src/vault/check/repair.ts';
import { ChunkIndex } from '../../src/vault/index/chunk-index.ts';
import type { Point } from '../../src/vault/points/point.ts';
import { deletePoint, listPoints } from '../../src/vault/points/points.ts';
import { prune } from '../../src/vault/prune/prune.ts';
import { listAtWork } from '../../src/vault/prune/unlock.ts';
import { openDirectoryStore } from '../../src/vault/store/directory.ts';
import { Vault } from '../../src/vault/vault.ts';
import { killedImages, killedKey, killedSize } from '../helpers/vault-killed.ts';
import { type TestImage, backUp, readBack } from '../helpers/vault-writer.ts';

const scratch = mkdtempSync(join(tmpdir(), 'vault-killed-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

const child = join(import.meta.dirname, '../helpers/vault-kill-child.ts');
const moments = ['before', 'during', 'after'] as const;
/** Number of simultaneous children. */
const atOnce = 3;

interface Made {
  readonly directory: string;
  readonly live: ReadonlyMap<string, TestImage>;
}

/** Makes a vault with two points, the garbage of a third, and an index of all of it. */
async function makeVault(name: string): Promise<Made> {
  const directory = join(scratch, name);
  mkdirSync(directory);
  const store = await openDirectoryStore(join(directory, 'vault'), { create: true });
  const vault = await Vault.init(store, {
    keys: [{ material: killedKey }],
    chunkSize: 4096,
    packSize: 1024 * 1024,
  });
  const index = ChunkIndex.open(join(directory, 'index.sqlite'), vault.id);
  const forgotten = await backUp(vault, index, { image: killedImages.forgotten, size: killedSize });
  const first = await backUp(vault, index, { image: killedImages.first, size: killedSize });
  const second = await backUp(vault, index, { image: killedImages.second, size: killedSize });
  await deletePoint(vault, forgotten.id);
  index.close();
  return {
    directory,
    live: new Map([
      [first.id, killedImages.first],
      [second.id, killedImages.second],
    ]),
  };
}

async function runChild(directory: string, action: string, count: number, moment: string): Promise<string> {
  const args = [
    child,
    join(directory, 'vault'),
    join(directory, 'index.sqlite'),
    action,
    String(count),
    moment,
  ];
  const running = spawn(process.execPath, ['--disable-warning=ExperimentalWarning', ...args], {
    stdio: ['ignore', 'inherit', 'inherit'],
  });
  const [code, signal] = (await once(running, 'exit')) as [number | null, string | null];
  return signal ?? String(code);
}

interface Opened {
  readonly vault: Vault;
  readonly index: ChunkIndex;
}

/** Runs the child on copies, with every number of writes, until the child ends by itself. */
async function forEveryWrite(
  { directory }: Made,
  action: string,
  proof: (opened: Opened, where: string) => Promise<void>,
): Promise<number> {
  let count = 0;
  let isOver = false;
  const work = async (): Promise<void> => {
    while (!isOver) {
      const number = count++;
      const moment = moments[number % moments.length]!;
      const write = Math.floor(number / moments.length);
      const copy = join(scratch, `${action}-${number}`);
      cpSync(directory, copy, { recursive: true, preserveTimestamps: true });
      const end = await runChild(copy, action, write, moment);
      if (end === '0') isOver = true;
      else assert.equal(end, 'SIGKILL');
      const vault = await Vault.open(await openDirectoryStore(join(copy, 'vault')), killedKey);
      const index = ChunkIndex.open(join(copy, 'index.sqlite'), vault.id);
      await proof({ vault, index }, `${action}, killed ${moment} write ${write}`);
      index.close();
      rmSync(copy, { recursive: true });
    }
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return count;
}

async function assertPoints(
  { vault, index }: Opened,
  points: readonly Point[],
  live: ReadonlyMap<string, TestImage>,
  where: string,
): Promise<void> {
  const there = new Map(points.map((point) => [point.id, point]));
  for (const [id, image] of live)
    assert.deepEqual(await readBack(vault, index, there.get(id)!.devices[0]!), image, where);
}

for (const action of ['backup', 'prune'] as const)
  test(`killed at every write of a ${action}`, async () => {
    const made = await makeVault(action);
    const runs = await forEveryWrite(made, action, async (opened, where) => {
      const { vault, index } = opened;
      const checked = await checkVault(vault, index, { readData: true });
      assert.equal(checked.ok, true, where);
      const { points } = await listPoints(vault);
      // A new point can only be the one that was being made, and it is whole.
      const live = new Map(points.map(({ id }) => [id, made.live.get(id) ?? killedImages.next]));
      for (const id of made.live.keys()) assert.ok(live.has(id), where);
      await assertPoints(opened, points, live, where);

      const pruned = await prune(vault, index);
      assert.equal(pruned.waiting.packs, 0, where);
      assert.deepEqual(await listAtWork(vault), { writers: [], locks: [] }, where);
      assert.deepEqual((await prune(vault, index, { dryRun: true })).deleted.packs, 0, where);
      const next = await backUp(vault, index, { image: killedImages.next, size: killedSize });
      live.set(next.id, killedImages.next);
      await assertPoints(opened, (await listPoints(vault)).points, live, where);
    });
    assert.ok(runs > 3 * 5, `${runs} runs`);
  });

test('killed at every write of a repair', async () => {
  const made = await makeVault('repair');
  const { directory, live } = made;
  const vault = await Vault.open(await openDirectoryStore(join(directory, 'vault')), killedKey);
  // Flips a bit in the largest pack.
  const packs = readdirSync(join(directory, 'vault/packs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.includes('/'))
    .map((name) => join(directory, 'vault/packs', name));
  const bytes = packs.map((path) => ({ path, data: readFileSync(path) }));
  const largest = bytes.reduce((a, b) => (b.data.length > a.data.length ? b : a));
  largest.data[50_000]! ^= 4;
  writeFileSync(largest.path, largest.data);
  const index = ChunkIndex.open(join(scratch, 'repair-before.sqlite'), vault.id);
  const before = await checkVault(vault, index, { readData: true });
  index.close();
  assert.equal(before.damagedPacks.length, 1);

  const runs = await forEveryWrite(made, 'repair', async (opened, where) => {
    const { vault: opening, index: using } = opened;
    const found = await checkVault(opening, using, { readData: true });
    assert.deepEqual(found.points, before.points, where);
    const repaired = await repairVault(opening, using);
    assert.deepEqual(repaired.after.points, before.points, where);
    await prune(opening, using);
    assert.deepEqual((await checkVault(opening, using, { readData: true })).damagedPacks, [], where);
    // Storing the same bytes again restores the lost data.
    for (const image of [killedImages.forgotten, ...live.values()])
      await backUp(opening, using, { image, size: killedSize });
    assert.equal((await checkVault(opening, using, { readData: true })).ok, true, where);
    await assertPoints(opened, (await listPoints(opening)).points, live, where);
  });
  assert.ok(runs > 3 * 5, `${runs} runs`);
});
