/**
 * Random histories of one tracked device and its backups to two targets. They contain writes, jobs of every kind, and
 * kills at any durable step. They also put back an older copy of the state directory, and make records unreadable for a
 * moment. Chains, plans and the consumer are real, on files; tracker, device and targets are models. After each job
 * that succeeds, its target holds the content of the device.
 */
import assert from 'node:assert/strict';
import fs, { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { silentLog } from '../../base/log.ts';
import { Chain, chainId, type ChainSubject } from '../../tracking/chain.ts';
import { newGeneration } from '../../tracking/generation.ts';
import type { TrackedDevice, Tracker } from '../../tracking/tracker.ts';
import { DirtyMapConsumer } from './dirty-map-consumer.ts';
import { chooseKind } from '../prepare/choose-kind.ts';
import type { BackupKind } from '../../api/job-status.ts';

const unit = 65536;
const blocks = 4;
const size = blocks * unit;
const targets = ['/image-a', '/image-b'] as const;
const log = silentLog();

class Killed extends Error {}

/** The kernel's map, which outlives the daemon. If `tied` is false, its generation never changes. */
class ModelTracker implements Tracker {
  readonly kind = 'test';
  readonly #epoch = { id: 'epoch', since: 1 };
  readonly #tied: boolean;
  readonly #step: () => void;
  readonly #map = new Bitmap(size, unit);
  #generation = newGeneration();

  constructor(tied: boolean, step: () => void) {
    this.#tied = tied;
    this.#step = step;
  }

  write(block: number): void {
    this.#map.mark(block * unit, 1);
  }

  track(): ReturnType<Tracker['track']> {
    return Promise.resolve({ epoch: this.#epoch, generation: this.#generation, doubt: undefined });
  }

  take(): ReturnType<Tracker['take']> {
    return Promise.resolve({
      ...{ epoch: this.#epoch, generation: this.#generation, dirty: this.#map.clone() },
      commit: (next) => {
        this.#step();
        if (this.#tied) this.#generation = next;
        this.#step();
        this.#map.fill(false);
        return this.#tied;
      },
    });
  }

  state(): undefined {
    return undefined;
  }

  untrack(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

class World {
  readonly state = join(scratch, 'state');
  readonly copy = join(scratch, 'copy');
  readonly device: number[] = new Array<number>(blocks).fill(0);
  readonly images = new Map(targets.map((target) => [target, new Array<number>(blocks).fill(-1)]));
  readonly tracker: ModelTracker;
  /** Durable steps until the daemon is killed. */
  killIn = Infinity;

  constructor(tied: boolean) {
    for (const path of [this.state, this.copy]) rmSync(path, { recursive: true, force: true });
    fs.mkdirSync(this.state, { recursive: true });
    this.tracker = new ModelTracker(tied, () => this.step());
  }

  readonly step = (): void => {
    if (this.killIn-- === 0) throw new Killed();
  };

  write(block: number, value: number): void {
    this.device[block] = value;
    this.tracker.write(block);
  }

  async backUp(target: (typeof targets)[number], wanted: BackupKind): Promise<BackupKind> {
    const subject: ChainSubject = { uuid: 'u', path: '/dev/x', size, partitionStart: 0, target };
    const found = await Chain.open(this.state, subject, unit);
    const chain = found ?? (await Chain.create(this.state, subject, { targetSize: size, unit }));
    const { tracker } = this;
    const tracked = await tracker.track();
    const { record } = found ?? {};
    const plan = chooseKind({
      ...{ wanted, subject, record, tracked, targetSize: size },
      ...{ unknown: 'nothing is known', drift: undefined, untracked: '' },
    });
    const image = this.images.get(target)!;
    // The chain's fingerprints: put back with the state directory, and written before their data is known to be sent.
    const prints = () => join(chain.directory, 'prints');
    const known = (): number[] =>
      existsSync(prints()) ? (JSON.parse(readFileSync(prints(), 'utf8')) as number[]) : [];
    const send = async (): Promise<void> => {
      const set = chain.pending.clone();
      const sent = known();
      for (const { offset, length } of set.extents())
        for (let block = offset / unit; block < (offset + length) / unit; block++) {
          sent[block] = this.device[block]!;
          writeFileSync(prints(), JSON.stringify(sent));
          this.step();
          image[block] = this.device[block]!;
        }
      chain.pending.andNot(set);
      await chain.savePending();
    };
    const device: TrackedDevice = {
      ...{ path: '/dev/x', major: 1, minor: 1, size, uuid: 'u' },
      ...{ partition: undefined, diskSequence: undefined },
    };
    const feed = new DirtyMapConsumer({ tracker, device, tracked, chain, chains: this.state, log });
    await chain.adopt();
    if (plan.kind === 'full') await chain.reset(size);
    await chain.save({ torn: true });
    if (plan.kind === 'differential') {
      for (let block = 0; block < blocks; block++) {
        const stale = plan.readTarget === true && known()[block] !== image[block];
        if (stale || known()[block] !== this.device[block]) chain.pending.mark(block * unit, unit);
      }
      await chain.savePending();
    } else {
      await feed.take({ frozen: false });
      await feed.secure();
    }
    await send();
    await feed.take({ frozen: true });
    await feed.secure();
    await send();
    await chain.complete({ epoch: tracked.epoch, generations: feed.generations, targetSize: size });
    assert.deepEqual(image, this.device, `${target} after a ${plan.kind}`);
    return plan.kind;
  }
}

interface BackUpStep {
  readonly do: 'back up';
  readonly target: (typeof targets)[number];
  readonly kind: BackupKind;
  /** The daemon is killed before the durable step of this number. */
  readonly kill: number | undefined;
  /** The files of the other chain that cannot be read during the job, by the beginning of their names. */
  readonly unreadable: string | undefined;
}

type Step =
  | { readonly do: 'write'; readonly block: number; readonly value: number }
  | { readonly do: 'copy' | 'put back' }
  | BackUpStep;

const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'feed-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

/** Replaces the functions that write and read chains, while `work` runs. */
async function withFaults(
  world: World,
  unreadable: string | undefined,
  work: () => Promise<void>,
): Promise<void> {
  const { rename, readFile } = fs.promises;
  fs.promises.rename = async (from, to) => {
    world.step();
    await rename(from, to);
    world.step();
  };
  fs.promises.readFile = (async (path: string, ...rest: [never]) => {
    if (unreadable !== undefined && path.startsWith(unreadable))
      throw Object.assign(new Error('no descriptors'), { code: 'EMFILE' });
    return readFile(path, ...rest);
  }) as typeof readFile;
  syncBuiltinESMExports();
  try {
    await work();
  } finally {
    Object.assign(fs.promises, { rename, readFile });
    syncBuiltinESMExports();
  }
}

async function run(history: readonly Step[], tied: boolean): Promise<BackupKind[]> {
  const world = new World(tied);
  const kinds: BackupKind[] = [];
  for (const step of history) {
    if (step.do === 'write') world.write(step.block, step.value);
    else if (step.do === 'back up') await backUpWith(world, step, kinds);
    else if (step.do === 'copy') {
      rmSync(world.copy, { recursive: true, force: true });
      cpSync(world.state, world.copy, { recursive: true });
    } else if (existsSync(world.copy)) {
      rmSync(world.state, { recursive: true });
      cpSync(world.copy, world.state, { recursive: true });
    }
  }
  return kinds;
}

/** Runs a backup. Adds its kind to `kinds` unless the job was killed. */
async function backUpWith(world: World, step: BackUpStep, kinds: BackupKind[]): Promise<void> {
  world.killIn = step.kill ?? Infinity;
  const other = targets.find((target) => target !== step.target)!;
  const id = chainId({ uuid: 'u', path: '/dev/x', size, partitionStart: 0, target: other });
  const unreadable = step.unreadable === undefined ? undefined : join(world.state, id, step.unreadable);
  try {
    await withFaults(world, unreadable, async () => {
      kinds.push(await world.backUp(step.target, step.kind));
    });
  } catch (error) {
    if (!(error instanceof Killed)) throw error;
  }
}

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('write' as const),
      block: fc.nat(blocks - 1),
      value: fc.nat(2),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('copy' as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('put back' as const) }) },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant('back up' as const),
      target: fc.constantFrom(...targets),
      kind: fc.constantFrom<BackupKind>('incremental', 'incremental', 'incremental', 'full', 'differential'),
      kill: fc.option(fc.nat(40), { nil: undefined, freq: 2 }),
      unreadable: fc.option(fc.constantFrom('chain.json', 'pending'), { nil: undefined, freq: 3 }),
    }),
  },
);
const histories = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 16 }), (history) =>
  run(history, true).then(() => undefined),
);

const backUp = (target: number, more: Partial<BackUpStep> = {}): Step => ({
  ...{ do: 'back up', target: targets[target]!, kind: 'incremental', kill: undefined, unreadable: undefined },
  ...more,
});
const write = (block: number, value: number): Step => ({ do: 'write', block, value });

test('the target of a job that succeeds holds the device, after any history', async () => {
  await fc.assert(histories, { numRuns: 80 });
});

test('after an older state directory is put back, each chain is compared once, and its next backups are incremental', async () => {
  const history: Step[] = [
    ...[backUp(0), backUp(1), { do: 'copy' } as const, write(1, 7), backUp(1), { do: 'put back' } as const],
    ...[backUp(0), backUp(1), write(2, 5), backUp(0), backUp(1)],
  ];
  assert.deepEqual(await run(history, true), [
    ...['full', 'full', 'incremental', 'differential', 'differential', 'incremental', 'incremental'],
  ]);
  await assert.rejects(run(history, false), /image-a after a incremental/);
});

test('a target that is newer than its fingerprints is read before the device is compared', async () => {
  const history: Step[] = [
    ...[backUp(0), { do: 'copy' } as const, write(1, 7), backUp(0), { do: 'put back' } as const, write(1, 0)],
    backUp(0),
  ];
  assert.deepEqual(await run(history, true), ['full', 'incremental', 'differential']);
});

for (const unreadable of ['chain.json', 'pending'])
  test(`a chain whose ${unreadable} could not be read while another job committed is compared`, async () => {
    const history = [backUp(0), backUp(1), write(1, 7), backUp(1, { unreadable }), backUp(0), backUp(1)];
    const kinds = ['full', 'full', 'incremental', 'differential', 'incremental'];
    assert.deepEqual(await run(history, true), kinds);
    await assert.rejects(run(history, false), /image-a after a incremental/);
  });

test('a kill at any durable step costs no chain its incremental', async () => {
  for (let kill = 0; kill < 60; kill++) {
    const history = [
      backUp(0),
      backUp(1),
      write(1, 7),
      backUp(1, { kill }),
      write(2, 8),
      backUp(0),
      backUp(1),
    ];
    const kinds = await run(history, true);
    assert.deepEqual(new Set(kinds.slice(2)), new Set(['incremental']), `killed at step ${kill}`);
  }
});

test('random histories find the fault if the generation is left out', async () => {
  const untied = fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 16 }), (history) =>
    run(history, false).then(() => undefined),
  );
  const { failed } = await fc.check(untied, { numRuns: 2000, endOnFailure: true });
  assert.ok(failed);
});
