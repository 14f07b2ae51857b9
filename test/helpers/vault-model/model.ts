/**
 * The vault against a plain model: a table of points and their images. The steps are random. Blocks are written. Backups,
 * prunes and checks run beside one another, request by request. Processes are killed in any request. Requests fail, or
 * happen late or twice. The store is full. Clocks jump, by years too. Local indexes are damaged, or were used with a copy
 * of the vault. Random numbers repeat. Writers and pruners are declared stale and wake up. In the end, every point that is
 * live in the model must restore bit for bit.
 *
 * A seed repeats everything: times, IDs and orders come from it, and no process does anything that takes real time.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import type { Clock } from '../../../src/base/clock.ts';
import { AgentError, toAgentError } from '../../../src/base/errors.ts';
import { randomness } from '../../../src/base/random.ts';
import { checkVault } from '../../../src/vault/check/check-vault.ts';
import { ChunkIndex } from '../../../src/vault/index/chunk-index.ts';
import { PartReader } from '../../../src/vault/packs/part-reader.ts';
import { forgetPoint, listPoints, protectPoint, unprotectPoint } from '../../../src/vault/points/points.ts';
import { type PruneOptions, prune } from '../../../src/vault/prune/prune.ts';
import { listAtWork, unlockVault } from '../../../src/vault/prune/unlock.ts';
import { type MemoryStore, openMemoryStore } from '../stores/memory-store.ts';
import { openDocument } from '../../../src/vault/sealed.ts';
import { Vault } from '../../../src/vault/vault.ts';
import type { Owner } from '../../../src/vault/writing/owner.ts';
import { seeded } from '../random.ts';
import { type TestBackup, type TestImage, backUp, readBack } from '../vault-writer.ts';
import { AgentStore, type RequestFate } from './agent-store.ts';
import { type AgentKind, isExpected, outcomeOf } from './outcomes.ts';
import { type ModelPoint, ModelPoints } from './points.ts';
import { chunkSize, deviceSize, difference, written } from './images.ts';

export interface ModelOptions {
  readonly seed: number;
  readonly steps: number;
  /** Told of every step. */
  readonly log?: ((line: string) => void) | undefined;
}

/** How often what happened. */
export type ModelCounts = Readonly<Record<string, number>>;

interface Agent {
  readonly kind: AgentKind;
  readonly name: string;
  readonly machine: number;
  readonly slot: number;
  readonly store: AgentStore;
  readonly owner: Owner;
  /** It seldom gets its turn, so others come and go meanwhile. */
  readonly isSlow: boolean;
  isDone: boolean;
}

const hourMs = 3600 * 1000;
const slots = 5;
const machines = 3;
const mostLive = 8;
/** A request that comes late does so within a day by the store's clock (docs/formats/vault.md). */
const latestMs = 20 * hourMs;

function ownerOf(machine: number, pid: number): Owner {
  return { host: `h${machine}`, machine: `m${machine}`, boot: 'b', pid, start_time: 1 };
}

/**
 * The clock of all machines. It shows each time once. Its monotonic time is fast, so a reader trusts a refresh (60 s) only
 * for its next questions. Waiting takes one turn of the event loop.
 */
function repeatableClock(): Clock {
  let now = 1_700_000_000_000;
  let monotonic = 0;
  return { now: () => ++now, monotonic: () => (monotonic += 5000), sleep: () => turn() };
}

export async function runVaultModel(options: ModelOptions): Promise<ModelCounts> {
  const scratch = mkdtempSync(join(tmpdir(), 'vault-model-'));
  const { kernel, moment } = randomness;
  // Ids decide on orders, so they come from the seed too.
  let bytes = seeded(options.seed ^ 0x5eed);
  randomness.kernel = (size) => Buffer.from(Array.from({ length: size }, () => Math.floor(bytes() * 256)));
  randomness.moment = () => '';
  const model = new Model(options, scratch, (since) => {
    bytes = seeded(options.seed ^ 0x5eed ^ since);
  });
  try {
    await model.run();
    return model.counts;
  } catch (error) {
    throw new Error(`vault model, seed ${options.seed}, step ${model.step}: ${String(error)}`, {
      cause: error,
    });
  } finally {
    model.close();
    Object.assign(randomness, { kernel, moment });
    rmSync(scratch, { recursive: true, force: true });
  }
}

class Model {
  readonly counts: Record<string, number> = {};
  step = 0;
  readonly #random: () => number;
  readonly #options: ModelOptions;
  readonly #scratch: string;
  readonly #revertNumbers: (since: number) => void;
  readonly #store: MemoryStore;
  #clock = 1_700_000_000_000;
  /** The latest time that the store's clock has shown. */
  #latest = 0;
  /** Time that has passed, without the jumps back. */
  #passed = 0;
  #vault!: Vault;
  #verifying!: ChunkIndex;
  readonly #indexes = new Map<number, ChunkIndex>();
  readonly #agents: Agent[] = [];
  #images: TestImage[] = [new Map(), new Map()];
  readonly #points = new ModelPoints((what) => this.#count(what));
  readonly #late: { readonly since: number; readonly request: () => Promise<unknown> }[] = [];
  #names = 0;
  readonly #sampling: () => number;
  readonly #machineClock = repeatableClock();

  /** `revert` begins the random numbers of ids and nonces again; the same number, the same course. */
  constructor(options: ModelOptions, scratch: string, revert: (since: number) => void) {
    this.#options = options;
    this.#revertNumbers = revert;
    this.#random = seeded(options.seed);
    this.#sampling = seeded(options.seed ^ 0x5a3b1e);
    this.#scratch = scratch;
    this.#store = this.#points.watching(openMemoryStore({ now: () => this.#clock }), (key, sealed) =>
      openDocument(this.#vault.secrets, key, sealed),
    );
  }

  close(): void {
    for (const index of [...this.#indexes.values(), this.#verifying]) index.close();
  }

  async run(): Promise<void> {
    this.#vault = await Vault.init(this.#store, {
      keys: [{ material: { kind: 'file', text: '00'.repeat(32) } }],
      chunkSize,
      packSize: 1024 * 1024,
    });
    this.#verifying = this.#openIndex('verify');
    for (this.step = 0; this.step < this.#options.steps; this.step++) {
      await this.#step();
      this.#passTime(this.#random() * 60_000);
    }
    await this.#end();
  }

  async #step(): Promise<void> {
    const steps: readonly (readonly [number, string, () => void | Promise<void>])[] = [
      [25, 'write', () => this.#write()],
      [9, 'begin a backup', () => this.#begin('backup')],
      [6, 'begin a prune', () => this.#begin('prune')],
      [1, 'begin a check', () => this.#begin('check')],
      [34, 'advance', () => this.#advance()],
      [10, 'run to the end', () => this.#runToEnd()],
      [2, 'kill', () => this.#kill()],
      [5, 'forget', () => this.#forget()],
      [1, 'protect', () => this.#protect()],
      [1, 'clock jump', () => this.#jump()],
      [3, 'land', () => this.#land()],
      [3, 'restore and compare', () => this.#verify()],
      [1.5, 'unlock', () => this.#unlock()],
      [0.5, 'clock in the future', () => this.#goAhead()],
      [1, 'damage an index', () => this.#damageIndex()],
      [0.7, 'use a copy', () => this.#useCopy()],
      [0.3, 'put back to a snapshot', () => this.#revert()],
    ];
    let at = this.#random() * steps.reduce((sum, [weight]) => sum + weight, 0);
    const [, name, work] = steps.find(([weight]) => (at -= weight) < 0)!;
    this.#count(name);
    this.#options.log?.(`${this.step} ${name}`);
    await work();
  }

  #write(): void {
    const device = this.#pick([...this.#images.keys()])!;
    // Now and then everything is as it once was, so that garbage is built on.
    const earlier = this.#random() < 0.1 ? this.#pick([...this.#points.values()].slice(-30)) : undefined;
    const next = earlier?.content.image ?? written(this.#images[device]!, this.#random);
    this.#images = this.#images.map((image, at) => (at === device ? next : image));
  }

  async #begin(kind: AgentKind): Promise<void> {
    const free = Array.from({ length: slots }, (_, slot) => slot).filter((slot) =>
      this.#agents.every((agent) => agent.slot !== slot),
    );
    const slot = this.#pick(free);
    if (slot === undefined) return;
    const machine = Math.floor(this.#random() * machines);
    const name = `${kind}-${this.#names++}`;
    const owner = ownerOf(machine, this.#names);
    const store = new AgentStore(this.#store, (request) => this.#late.push({ since: this.#passed, request }));
    const isSlow = this.#random() < 0.25;
    const agent: Agent = { kind, name, machine, slot, store, owner, isSlow, isDone: false };
    const vault = await Vault.open(store, this.#vault.secrets);
    store.isFree = false;
    this.#agents.push(agent);
    void this.#work(agent, vault).then(
      () => this.#ended(agent, undefined),
      (error: unknown) => this.#ended(agent, error),
    );
    await this.#settled(agent);
  }

  #work(agent: Agent, vault: Vault): Promise<unknown> {
    let index = this.#indexes.get(agent.slot);
    // Now and then the index is lost.
    if (index === undefined || this.#random() < 0.03) {
      index?.close();
      index = this.#openIndex(agent.name);
      this.#indexes.set(agent.slot, index);
    }
    const { owner } = agent;
    const ownerState = (other: Owner): Promise<'gone' | 'unknown'> => {
      const lives = this.#agents.some((each) => each.owner.pid === other.pid);
      return Promise.resolve(other.machine === owner.machine && !lives ? 'gone' : 'unknown');
    };
    if (agent.kind === 'backup') return this.#backUp(agent, vault, index);
    if (agent.kind === 'check') return this.#check(vault, index);
    const maxWaste = this.#pick([0, 0.25, 0.9]);
    return this.#prune(vault, index, { owner, ownerState, maxWaste, dryRun: this.#random() < 0.1 });
  }

  async #prune(vault: Vault, index: ChunkIndex, options: PruneOptions): Promise<void> {
    const { damaged } = await prune(vault, index, options);
    if (damaged.length > 0) throw new Error(`prune says that there is damage: ${JSON.stringify(damaged)}`);
  }

  async #backUp({ owner }: Agent, vault: Vault, index: ChunkIndex): Promise<void> {
    const image = this.#pick(this.#images)!;
    const bases = this.#points.live();
    const base = this.#random() < 0.6 ? this.#pick(bases) : undefined;
    let point: ModelPoint | undefined;
    const backup: TestBackup = {
      image,
      size: deviceSize,
      owner,
      finished: new Date(this.#machineClock.now()),
      base: base === undefined ? undefined : { id: base[0], ...base[1].content },
      onPublish: ({ id, devices }) => {
        // A point of another course of events stays what it is.
        const there = this.#points.get(id)?.state;
        if (there !== 'live' && there !== 'doubtful')
          point = this.#points.begin(id, { image, device: devices[0]! });
      },
    };
    try {
      const { id } = await backUp(vault, index, backup);
      point = this.#points.get(id)!;
      if (point.state === 'doubtful') point.state = 'live';
      point.mayBeTakenBack = false;
    } finally {
      if (point !== undefined) point.isWriterAtWork = false;
    }
  }

  async #check(vault: Vault, index: ChunkIndex): Promise<void> {
    this.#points.judge(await checkVault(vault, index, { readData: this.#random() < 0.5 }));
  }

  #ended(agent: Agent, error: unknown): void {
    agent.isDone = true;
    // It may have read ahead. A refresh of the index that nothing settles would keep its lock for ever.
    void this.#cutOff(agent);
    this.#agents.splice(this.#agents.indexOf(agent), 1);
    const outcome = error === undefined ? 'done' : outcomeOf(error);
    this.#count(`${agent.kind} ${outcome}`);
    this.#options.log?.(`  ${agent.name} ended: ${outcome}`);
    if (error === undefined || isExpected(agent.kind, error, agent.store.isStale)) return;
    this.#failure ??= new Error(`${agent.name} failed: ${toAgentError(error).message}`, { cause: error });
  }
  #failure: Error | undefined;

  /** Until the agent waits for the model, or has ended. */
  async #settled(agent: Agent): Promise<void> {
    do await turn();
    while (!agent.isDone && (agent.store.waiting.length === 0 || agent.store.isFree));
    if (this.#failure !== undefined) throw this.#failure;
  }

  #pickAgent(): Agent | undefined {
    return this.#pick(this.#random() < 0.2 ? this.#agents : this.#agents.filter(({ isSlow }) => !isSlow));
  }

  async #advance(): Promise<void> {
    const agent = this.#pickAgent();
    if (agent === undefined) return;
    const most = agent.isSlow ? 3 : 20;
    for (let count = 1 + Math.floor(this.#random() * most); count > 0 && !agent.isDone; count--) {
      const { waiting } = agent.store;
      const [request] = waiting.splice(Math.floor(this.#random() * waiting.length), 1);
      if (request === undefined) return;
      const { kind, key } = request.what;
      const fate = this.#fate(kind === 'put' || kind === 'delete');
      this.#options.log?.(`  ${agent.name}: ${kind} ${key}: ${fate}`);
      void request.settle(fate);
      await this.#settled(agent);
    }
  }

  #fate(isWrite: boolean): RequestFate {
    if (this.#random() > 0.01) return 'done';
    if (!isWrite) return 'failed';
    if (this.#random() < 0.2) return 'full';
    return this.#pick<RequestFate>([
      'failed',
      'failed, though it happened',
      'late',
      'done twice',
      'done twice',
      'done twice',
    ])!;
  }

  async #runToEnd(agent = this.#pickAgent()): Promise<void> {
    if (agent === undefined) return;
    agent.store.release();
    await this.#settled(agent);
  }

  async #kill(): Promise<void> {
    const agent = this.#pick(this.#agents);
    if (agent === undefined) return;
    await this.#cutOff(agent);
    while (!agent.isDone) await turn();
  }

  /** The process is gone. The requests that it has sent may happen or not, now or later. */
  #cutOff({ store }: Agent): Promise<void> {
    return store.kill(() => this.#pick(['failed', 'late', 'done'] as const)!);
  }

  async #forget(): Promise<void> {
    const there = [...this.#points].filter(([, { state }]) => state === 'live' || state === 'doubtful');
    if (there.length === 0 || there.length <= this.#random() * mostLive) return;
    // All of them now and then; the last, on which writers may just be building, as often as any other.
    if (this.#random() < 0.1) for (const [id, point] of there) await this.#forgetOne(id, point);
    else await this.#forgetOne(...(this.#random() < 0.5 ? there.at(-1)! : this.#pick(there)!));
  }

  async #forgetOne(id: string, point: ModelPoint): Promise<void> {
    try {
      await forgetPoint(this.#vault, id);
      if (point.isProtected) throw new Error(`the protected point ${id} was forgotten`);
      point.state = 'forgotten';
    } catch (error) {
      if (!point.isProtected || !(error instanceof AgentError) || error.code !== 'POINT_PROTECTED')
        throw error;
    }
  }

  async #protect(): Promise<void> {
    const [id, point] = this.#pick(this.#points.live()) ?? [];
    if (id === undefined || point === undefined) return;
    if (point.isProtected) await unprotectPoint(this.#vault, id);
    else await protectPoint(this.#vault, id);
    point.isProtected = !point.isProtected;
  }

  async #jump(): Promise<void> {
    if (this.#random() < 0.4) {
      this.#clock -= this.#random() * 48 * hourMs;
      return;
    }
    await this.#land(Infinity);
    this.#passTime(this.#random() * 60 * hourMs);
  }

  /** A wrong clock: years ahead, or back at the right time. */
  async #goAhead(): Promise<void> {
    await this.#land(Infinity);
    const years = 20 * 365 * 24 * hourMs;
    this.#clock += this.#clock > 1_700_000_000_000 + years / 2 ? -years : years;
    this.#latest = Math.max(this.#latest, this.#clock);
  }

  /** Damages a file that nothing protects. A process that uses it must not notice, except by more work. */
  #damageIndex(): void {
    const index = this.#pick([...this.#indexes.values()]);
    const digit = 1 + Math.floor(this.#random() * 64);
    const third = Math.floor(this.#random() * 3);
    const statement = this.#pick([
      'DELETE FROM parts WHERE pack = (SELECT max(number) FROM packs)',
      `DELETE FROM parts WHERE (unicode(substr(hex(name), ${digit}, 1)) + pack) % 3 = ${third}`,
      'DELETE FROM packs WHERE number = (SELECT min(number) FROM packs)',
      'UPDATE parts SET offset = offset + 16',
      'UPDATE parts SET pack = (SELECT max(number) + min(number) FROM packs) - pack WHERE EXISTS (SELECT 1 FROM packs)',
      `UPDATE packs SET id = zeroblob(16) WHERE number = (SELECT max(number) FROM packs)`,
    ])!;
    this.#options.log?.(`  ${index === undefined ? 'none' : basename(index.path)}: ${statement}`);
    index?.database.exec(statement.replace('UPDATE ', 'UPDATE OR REPLACE '));
  }

  /** A copy of the vault at this moment, with an index of the original that no agent is using. */
  async #useCopy(): Promise<void> {
    const idle = [...this.#indexes].filter(([slot]) => this.#agents.every((agent) => agent.slot !== slot));
    const [, index] = this.#pick(idle) ?? [];
    if (index === undefined) return;
    const copy = openMemoryStore({ now: () => this.#clock, objects: this.#store.picture() });
    const vault = await Vault.open(copy, this.#vault.secrets);
    const image = this.#pick(this.#images)!;
    const owner = ownerOf(0, 0);
    const finished = new Date(this.#machineClock.now());
    const made = await backUp(vault, index, { image, size: deviceSize, owner, finished }).catch(
      (error: unknown) => {
        if (!isExpected('backup', error)) throw error;
      },
    );
    if (made === undefined) return;
    const fresh = this.#openIndex(`copy-${this.step}`);
    try {
      const wrong = difference(image, await readBack(vault, fresh, made.devices[0]!));
      if (wrong !== undefined) throw new Error(`the point of the copy: ${wrong}`);
    } finally {
      fresh.close();
    }
  }

  /** The machines' memory: their random numbers come again, or another course of them begins. */
  async #revert(): Promise<void> {
    await this.#land(Infinity);
    this.#revertNumbers(Math.floor(this.#random() * 3));
  }

  /** Its sample of packs comes from the seed too. SQLite's random() cannot be repeated. */
  #openIndex(name: string): ChunkIndex {
    const path = join(this.#scratch, `${name}.sqlite`);
    const index = ChunkIndex.open(path, this.#vault.id, { clock: this.#machineClock });
    index.somePacks = (count) => {
      const packs = [...index.packs()];
      while (packs.length > count) packs.splice(Math.floor(this.#sampling() * packs.length), 1);
      return packs;
    };
    return index;
  }

  #passTime(ms: number): void {
    this.#clock += ms;
    this.#latest = Math.max(this.#latest, this.#clock);
    this.#passed += ms;
  }

  async #land(count = 3): Promise<void> {
    const due = this.#late.filter(({ since }) => this.#passed - since > latestMs);
    while (due.length > 0 || (count-- > 0 && this.#late.length > 0)) {
      const late = due.pop() ?? this.#pick(this.#late)!;
      if (!this.#late.includes(late)) continue;
      this.#late.splice(this.#late.indexOf(late), 1);
      await late.request().catch(() => undefined);
      await this.#forgetAgain();
    }
  }

  /** A point whose put was repeated, and came late after it was forgotten: docs say that it is to be forgotten again. */
  async #forgetAgain(): Promise<void> {
    for (const [id, { state }] of this.#points)
      if (state === 'forgotten' && this.#store.objects.has(`points/${id}`)) {
        this.#count('came back');
        await this.#store.delete(`points/${id}`);
      }
  }

  async #unlock(): Promise<void> {
    const { writers, locks } = await listAtWork(this.#vault);
    const all = [...writers, ...locks].map(({ id }) => id);
    const one = this.#pick(all);
    // After random numbers came again, a writer and a lock may have one ID. Then `unlock` refuses to choose.
    if (one !== undefined && all.filter((id) => id === one).length === 1) await unlockVault(this.#vault, one);
  }

  async #verify(): Promise<void> {
    if (this.#random() < 0.1) {
      this.#verifying.close();
      this.#verifying = this.#openIndex(`verify-${this.step}`);
    }
    const { points, damaged } = await listPoints(this.#vault);
    if (damaged.length > 0) throw damaged[0]!.error;
    const there = new Map(points.map((point) => [point.id, point]));
    const reader = new PartReader(this.#vault, this.#verifying);
    for (const [id, { state, content }] of this.#points) {
      if (state !== 'live') continue;
      const point = there.get(id);
      if (point === undefined) throw new Error(`the live point ${id} is gone`);
      const wrong = difference(content.image, await readBack(this.#vault, reader, point.devices[0]!));
      if (wrong !== undefined) throw new Error(`the point ${id}: ${wrong}`);
      this.#count('points compared');
    }
  }

  /** Everything ends; then the vault holds what the points need, and without points nothing. */
  async #end(): Promise<void> {
    const owner = ownerOf(0, 0);
    while (this.#agents.length > 0) await this.#runToEnd(this.#agents[0]);
    await this.#land(Infinity);
    await this.#verify();
    this.#clock = Math.max(this.#latest, this.#clock);
    const index = this.#openIndex('last');
    for (let round = 0; round < 3; round++) {
      this.#passTime(31 * 24 * hourMs);
      await prune(this.#vault, index, { owner, maxWaste: 0, ownerState: () => Promise.resolve('unknown') });
    }
    await this.#verify();
    for (const [id, point] of this.#points) {
      await unprotectPoint(this.#vault, id);
      await forgetPoint(this.#vault, id);
      point.state = 'forgotten';
    }
    for (let round = 0; round < 3; round++) {
      this.#passTime(31 * 24 * hourMs);
      await prune(this.#vault, index, { owner, ownerState: () => Promise.resolve('unknown') });
    }
    index.close();
    const left = [...this.#store.objects.keys()].filter((key) => !/^(vault\.json|keys\/.*)$/.test(key));
    if (left.length > 0) throw new Error(`without points there is left: ${left.join(', ')}`);
  }

  #pick<T>(items: readonly T[]): T | undefined {
    return items[Math.floor(this.#random() * items.length)];
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }
}
