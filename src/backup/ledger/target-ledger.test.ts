/**
 * Proves the invariants 1 to 3 on the ledger alone. The chain is real, on files. The device, its allocation map, the
 * tracker and the target are models. Random histories write to the device at any moment of a job, lose the tracking,
 * and kill the daemon at any durable step. They also drop data at the target that no flush has confirmed. After each
 * job that succeeds, the target holds the device as it was at the job's instant.
 */
import assert from 'node:assert/strict';
import fs, { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import fc from 'fast-check';
import { Bitmap } from '../../base/bitmap.ts';
import { AgentError } from '../../base/errors.ts';
import { silentLog } from '../../base/log.ts';
import { Chain, type ChainSubject } from '../../tracking/chain.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import { newGeneration } from '../../tracking/generation.ts';
import type { TrackedDevice, Tracker } from '../../tracking/tracker.ts';
import { chooseKind } from '../prepare/choose-kind.ts';
import type { BackupKind } from '../../api/job-status.ts';
import { DirtyMapConsumer } from './dirty-map-consumer.ts';
import { ImageContents, PointContents } from './target-contents.ts';
import { TargetLedger } from './target-ledger.ts';

/** Bytes of a block; four of them have one fingerprint. */
const block = fingerprintUnit / 4;
const blocks = 12;
const size = blocks * block;
const perUnit = fingerprintUnit / block;
const scratch = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'ledger-'));
after(() => rmSync(scratch, { recursive: true, force: true }));

const trackedDevice: TrackedDevice = {
  ...{ path: '/dev/x', major: 1, minor: 1, size, uuid: 'u' },
  ...{ partition: undefined, diskSequence: undefined },
};

class Killed extends Error {}

/** The kernel's dirty map, which outlives the daemon. */
class ModelTracker implements Tracker {
  readonly kind = 'test';
  readonly #step: () => void;
  readonly #dirty = new Bitmap(size, block);
  /** Blocks that were taken and are not forgotten yet. A block that is written after the take is dirty again. */
  readonly #taken = new Bitmap(size, block);
  #epoch = 1;
  #isLost = false;
  #generation = newGeneration();

  constructor(step: () => void) {
    this.#step = step;
  }

  write(number: number): void {
    if (!this.#isLost) this.#dirty.mark(number * block, 1);
  }

  lose(): void {
    this.#isLost = true;
  }

  track(): ReturnType<Tracker['track']> {
    if (this.#isLost) {
      this.#isLost = false;
      this.#epoch++;
      this.#dirty.fill(false);
      this.#taken.fill(false);
    }
    return Promise.resolve({ epoch: this.#id, generation: this.#generation, doubt: undefined });
  }

  get #id(): { id: string; since: number } {
    return { id: `epoch ${this.#epoch}`, since: 1 };
  }

  take(): ReturnType<Tracker['take']> {
    if (this.#isLost) return Promise.reject(new AgentError('EPOCH_ENDED', 'events were lost'));
    this.#taken.or(this.#dirty);
    this.#dirty.fill(false);
    return Promise.resolve({
      ...{ epoch: this.#id, generation: this.#generation, dirty: this.#taken.clone() },
      commit: (next) => {
        this.#step();
        this.#generation = next;
        this.#taken.fill(false);
        this.#step();
        return true;
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

/** An event on the machine while a job does one of its steps. */
type Event =
  | { readonly do: 'write'; readonly block: number; readonly value: number }
  | { readonly do: 'use' | 'free'; readonly block: number }
  | { readonly do: 'lose tracking' };

interface JobStep {
  readonly do: 'back up';
  readonly kind: BackupKind;
  readonly isTracked: boolean;
  /** The event before each moment of the job that may be interrupted. */
  readonly meanwhile: readonly (Event | undefined)[];
  /** The daemon is killed before the durable step of this number. */
  readonly kill: number | undefined;
  /** The target then loses the data that no flush has confirmed. */
  readonly losesUnflushed: boolean;
  /** The connection is lost before the flush, so what it has not confirmed is read and sent again. */
  readonly reconnects: boolean;
  /** A block that cannot be read in this job. The target gets zeros instead. */
  readonly bad: number | undefined;
  /** The target takes no less than a fingerprint unit at once. */
  readonly isCoarse: boolean;
}

type Step = Event | JobStep;

/** An invariant that is removed, to show that the model finds the fault. */
type Break = 'complete before flushed' | 'read before take' | 'loss ignored';

class World {
  readonly state = join(scratch, 'state');
  readonly device: number[] = new Array<number>(blocks).fill(0);
  readonly used: boolean[] = new Array<boolean>(blocks).fill(true);
  readonly tracker = new ModelTracker(() => this.step());
  readonly isVault: boolean;
  readonly broken: Break | undefined;
  /** The image in place, or that of the last recovery point. */
  image: (number | undefined)[] = new Array<undefined>(blocks).fill(undefined);
  /** The image as the last flush has confirmed it. */
  confirmed: (number | undefined)[] = [];
  killIn = Infinity;
  #meanwhile: (Event | undefined)[] = [];
  #points = 0;
  #bad: number | undefined;
  #unreadable: { offset: number; length: number }[] = [];
  /** The device as it was before the last take. */
  #early: number[] = [];

  constructor(isVault: boolean, broken?: Break) {
    this.isVault = isVault;
    this.broken = broken;
    rmSync(this.state, { recursive: true, force: true });
    mkdirSync(this.state, { recursive: true });
  }

  readonly step = (): void => {
    if (this.killIn-- === 0) throw new Killed();
  };

  happens(event: Event): void {
    if (event.do === 'lose tracking') this.tracker.lose();
    else if (event.do === 'write') {
      this.device[event.block] = event.value;
      // A program that writes to a block has allocated it.
      this.used[event.block] = true;
      this.tracker.write(event.block);
    } else this.used[event.block] = event.do === 'use';
  }

  #moment(): void {
    const event = this.#meanwhile.shift();
    if (event !== undefined) this.happens(event);
  }

  #usedMap(): Bitmap {
    const map = new Bitmap(size, block);
    for (const [number, isUsed] of this.used.entries()) if (isUsed) map.mark(number * block, block);
    return map;
  }

  async backUp(job: JobStep): Promise<void> {
    const { meanwhile, kill, losesUnflushed } = job;
    this.#meanwhile = [...meanwhile];
    this.killIn = kill ?? Infinity;
    this.confirmed = [...this.image];
    try {
      await withSteps(this, () => this.#job(job));
    } catch (error) {
      if (!(error instanceof Killed)) throw error;
      if (losesUnflushed && !this.isVault) this.image = [...this.confirmed];
    }
    // A lost tracker tracks nothing for the rest of this job. The next job starts a new epoch.
    for (const event of this.#meanwhile) if (event !== undefined) this.happens(event);
  }

  /** Reads a block of the device. Returns -1 for the bad block. */
  #read(number: number, values: readonly number[] = this.device): number {
    if (number !== this.#bad) return values[number]!;
    this.#unreadable.push({ offset: number * block, length: block });
    return -1;
  }

  async #job({ kind: wanted, isTracked, reconnects, bad, isCoarse }: JobStep): Promise<void> {
    this.#bad = bad;
    this.#unreadable = [];
    const subject: ChainSubject = { uuid: 'u', path: '/dev/x', size, partitionStart: 0, target: '/image' };
    const found = await Chain.open(this.state, subject, block);
    const chain = found ?? (await Chain.create(this.state, subject, { targetSize: size, unit: block }));
    const tracked = isTracked ? await this.tracker.track() : undefined;
    const record = found?.record;
    const plan = chooseKind({
      ...{ wanted, subject, record, tracked, targetSize: size },
      ...{ unknown: 'nothing is known', drift: undefined, untracked: 'no tracker' },
    });
    const prints = new Prints(() => join(chain.directory, 'prints'));
    const hasBase = wanted !== 'full' && record?.base !== undefined && record.state === 'complete';
    const base = hasBase ? this.image : new Array<undefined>(blocks).fill(undefined);
    const making = this.isVault ? [...base] : this.image;
    const log = silentLog();
    const ledger = new TargetLedger({
      ...{ chain, rivals: [], recent: record?.recent, unreadable: () => this.#unreadable },
      contents: this.isVault ? new PointContents(chain, { hasBase }) : new ImageContents(chain),
      tracking: tracked && {
        consumer: new DirtyMapConsumer({
          ...{ tracker: this.tracker, device: trackedDevice, tracked, chain, chains: this.state, log },
        }),
        epoch: tracked.epoch,
      },
      target: () => ({ size, minimumBlock: this.isVault || isCoarse ? fingerprintUnit : 1 }),
    });
    const begun = (): void => {
      if (plan.kind !== 'full') return;
      prints.forget();
      if (this.isVault) making.fill(undefined);
    };
    ledger.useMap(this.#usedMap());
    await ledger.begin(plan.kind);
    begun();

    if (plan.readTarget === true) ledger.foundAtTarget(different(ledger.known(ledger.used), prints, making));
    if (plan.kind === 'differential') await this.#findByComparing(ledger, prints);
    else await this.#find(ledger, prints, plan.kind);
    await this.#send(ledger, prints, making, reconnects);

    this.#moment();
    ledger.useMap(this.#usedMap());
    await this.#find(ledger, prints, 'incremental');
    await this.#send(ledger, prints, making, reconnects);

    // The freeze: no event happens until the thaw.
    this.#moment();
    if (ledger.isTracked) await this.#taking(ledger, () => ledger.takeInFreeze());
    ledger.useMap(this.#usedMap());
    const kept = ledger.missing();
    if (!ledger.isTracked) kept.or(inBlocks(different(ledger.used, prints, this.device)));
    ledger.keptInFreeze(kept);
    const instant = this.device.map((_, number) =>
      kept.has(number) ? this.#read(number) : this.device[number]!,
    );
    const usedThen = [...this.used];

    this.#moment();
    await ledger.saveFound();
    const known = new Bitmap(size, fingerprintUnit);
    for (const number of numbersOf(kept)) {
      const unit = Math.floor(number / perUnit);
      const isWhole = range(unit).every((each) => kept.has(each));
      prints.set(unit, isWhole ? range(unit).map((each) => instant[each]!) : undefined);
      if (isWhole) known.mark(unit * fingerprintUnit, 1);
      this.step();
      making[number] = instant[number];
    }
    this.#flush();
    await ledger.sentFromFreeze(kept, known);

    this.#moment();
    const freed = ledger.freed();
    if (!freed.isEmpty())
      await ledger.releaseFreed(freed, (trimmed) => {
        for (const number of numbersOf(trimmed)) making[number] = undefined;
        return Promise.resolve(true);
      });
    await ledger.settled();
    if (this.isVault) {
      const touched = ledger.touched();
      // The map of a point has whole chunks, which have the size of a fingerprint unit here.
      const isUsed = (number: number): boolean =>
        range(Math.floor(number / perUnit)).some((each) => ledger.used.has(each));
      const point = base.map((value, number) =>
        touched.has(number) ? (isUsed(number) ? making[number] : undefined) : value,
      );
      this.step();
      this.image = point;
    }
    const uuid = `job ${++this.#points}`;
    const name = { point: uuid, root: '', levels: 1, index: '' };
    await ledger.complete({ uuid, tracker: 'test', base: this.isVault ? name : undefined });
    for (const [number, isUsed] of usedThen.entries())
      if (isUsed && !this.#unreadable.some(({ offset }) => offset === number * block))
        assert.equal(this.image[number], instant[number], `block ${number} after a ${plan.kind}`);
  }

  async #find(ledger: TargetLedger, prints: Prints, kind: BackupKind): Promise<void> {
    this.#early = [...this.device];
    this.#moment();
    if (ledger.isTracked && (await this.#taking(ledger, () => ledger.findByTracker({ countAsUsed: false }))))
      return;
    if (kind !== 'full') await this.#findByComparing(ledger, prints);
  }

  async #taking(ledger: TargetLedger, take: () => Promise<unknown>): Promise<boolean> {
    try {
      await take();
      return true;
    } catch (error) {
      if (!(error instanceof AgentError && error.code === 'EPOCH_ENDED')) throw error;
      if (this.broken !== 'loss ignored') ledger.trackingLost();
      return this.broken === 'loss ignored';
    }
  }

  async #findByComparing(ledger: TargetLedger, prints: Prints): Promise<void> {
    this.#moment();
    await ledger.findByComparing(different(ledger.used, prints, this.device));
  }

  /** Reads whole units, and sends the blocks of the set. */
  async #send(
    ledger: TargetLedger,
    prints: Prints,
    making: (number | undefined)[],
    reconnects: boolean,
  ): Promise<void> {
    const set = ledger.toSend();
    if (set.isEmpty()) return;
    const early = this.broken === 'read before take' ? this.#early : undefined;
    const sendAll = (): void => {
      for (const unit of new Set(numbersOf(set).map((number) => Math.floor(number / perUnit)))) {
        this.#moment();
        const read = range(unit).map((number) => this.#read(number, early));
        prints.set(unit, read);
        for (const [i, number] of range(unit).entries())
          if (set.has(number)) {
            this.step();
            making[number] = read[i];
          }
      }
    };
    sendAll();
    if (reconnects) sendAll();
    const sent = { blocks: set, resent: reconnects ? set : undefined };
    if (this.broken === 'complete before flushed') await ledger.sent(sent);
    this.#moment();
    this.step();
    this.#flush();
    if (this.broken !== 'complete before flushed') await ledger.sent(sent);
  }

  #flush(): void {
    this.confirmed = [...this.image];
  }
}

/** The fingerprint file: the values of each unit when it was read last. Survives a kill. */
class Prints {
  readonly #path: () => string;

  constructor(path: () => string) {
    this.#path = path;
  }

  get(unit: number): readonly number[] | undefined {
    return this.#all()[unit] ?? undefined;
  }

  set(unit: number, values: readonly number[] | undefined): void {
    const all = this.#all();
    all[unit] = values ?? null;
    writeFileSync(this.#path(), JSON.stringify(all));
  }

  forget(): void {
    rmSync(this.#path(), { force: true });
  }

  #all(): (readonly number[] | null)[] {
    return existsSync(this.#path())
      ? (JSON.parse(readFileSync(this.#path(), 'utf8')) as (readonly number[] | null)[])
      : new Array<null>(blocks / perUnit).fill(null);
  }
}

const range = (unit: number): number[] => Array.from({ length: perUnit }, (_, i) => unit * perUnit + i);

function numbersOf(set: Bitmap): number[] {
  return Array.from({ length: blocks }, (_, number) => number).filter((number) => set.has(number));
}

/** Returns the fingerprint units of the set whose content differs from the fingerprint. */
function different(set: Bitmap, prints: Prints, content: readonly (number | undefined)[]): Bitmap {
  const found = new Bitmap(size, fingerprintUnit);
  for (const unit of new Set(numbersOf(set).map((number) => Math.floor(number / perUnit)))) {
    const print = prints.get(unit);
    if (print === undefined || range(unit).some((number, i) => content[number] !== print[i]))
      found.mark(unit * fingerprintUnit, 1);
  }
  return found;
}

function inBlocks(units: Bitmap): Bitmap {
  const set = new Bitmap(size, block);
  for (const { offset, length } of units.extents()) set.mark(offset, length);
  return set;
}

/** Each rename makes a file of the chain appear. It is a step at which the daemon may be killed. */
async function withSteps(world: World, work: () => Promise<void>): Promise<void> {
  const { rename } = fs.promises;
  fs.promises.rename = async (from, to) => {
    world.step();
    await rename(from, to);
    world.step();
  };
  syncBuiltinESMExports();
  try {
    await work();
  } finally {
    Object.assign(fs.promises, { rename });
    syncBuiltinESMExports();
  }
}

async function run(history: readonly Step[], isVault: boolean, broken?: Break): Promise<void> {
  const world = new World(isVault, broken);
  for (const step of history)
    if (step.do === 'back up') await world.backUp(step);
    else world.happens(step);
}

const anyBlock = fc.nat(blocks - 1);
const event: fc.Arbitrary<Event> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('write' as const), block: anyBlock, value: fc.nat(3) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constantFrom('use' as const, 'free' as const), block: anyBlock }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('lose tracking' as const) }) },
);
const job: fc.Arbitrary<JobStep> = fc.record({
  do: fc.constant('back up' as const),
  kind: fc.constantFrom<BackupKind>('incremental', 'incremental', 'incremental', 'full', 'differential'),
  isTracked: fc.constantFrom(true, true, true, false),
  meanwhile: fc.array(fc.option(event, { nil: undefined }), { maxLength: 12 }),
  kill: fc.option(fc.nat(60), { nil: undefined, freq: 2 }),
  losesUnflushed: fc.boolean(),
  reconnects: fc.boolean(),
  bad: fc.option(anyBlock, { nil: undefined, freq: 3 }),
  isCoarse: fc.boolean(),
});
const histories = fc.array(fc.oneof({ weight: 1, arbitrary: event }, { weight: 1, arbitrary: job }), {
  minLength: 4,
  maxLength: 14,
});

for (const [what, isVault] of [
  ['an image in place', false],
  ['recovery points', true],
] as const)
  test(`a job that succeeds leaves the device as it was at its instant, after any history: ${what}`, async () => {
    await fc.assert(
      fc.asyncProperty(histories, (history) => run(history, isVault)),
      { numRuns: Number(process.env['LEDGER_RUNS'] ?? 60) },
    );
  });

test('the model finds the fault "complete before flushed"', async () => {
  const job: JobStep = {
    ...{ do: 'back up', kind: 'incremental', isTracked: true, meanwhile: [], kill: undefined },
    ...{ losesUnflushed: true, reconnects: false, bad: undefined, isCoarse: true },
  };
  let found = 0;
  for (let kill = 0; kill < 40; kill++) {
    const history: Step[] = [job, { do: 'write', block: 1, value: 2 }, { ...job, kill }, job];
    await run(history, false);
    await run(history, false, 'complete before flushed').catch(() => found++);
  }
  assert.ok(found > 0);
});

for (const broken of ['read before take', 'loss ignored'] as const)
  test(`the model finds the fault "${broken}"`, async () => {
    const property = fc.asyncProperty(histories, (history) => run(history, false, broken));
    const { failed } = await fc.check(property, { numRuns: 3000, endOnFailure: true });
    assert.ok(failed);
  });

test('places that a freeze could not read stay pending on disk if the job ends before it completes', async () => {
  const parent = mkdtempSync(join(scratch, 'unreadable-'));
  const subject = { uuid: 'ab', path: '/dev/sda1', size, partitionStart: 0, target: 'nbd://host/image' };
  const chain = await Chain.create(parent, subject, { targetSize: size, unit: block });
  await chain.adopt();
  const bad: { offset: number; length: number }[] = [];
  const ledger = new TargetLedger({
    ...{ chain, rivals: [], contents: new ImageContents(chain), tracking: undefined, recent: undefined },
    target: () => ({ size, minimumBlock: 1 }),
    unreadable: () => bad,
  });
  const kept = new Bitmap(size, block);
  kept.fill(true);
  ledger.useMap(kept);
  await ledger.begin('full');
  bad.push({ offset: 2 * fingerprintUnit + 512, length: 512 });
  await ledger.sentFromFreeze(kept, new Bitmap(size, fingerprintUnit));
  assert.ok(ledger.missing().isEmpty());
  const read = await Chain.open(parent, subject, block);
  assert.deepEqual(
    [...(read?.pending.extents() ?? [])],
    [{ offset: 2 * fingerprintUnit, length: fingerprintUnit }],
  );
});
