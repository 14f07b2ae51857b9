/**
 * A writer's time in a vault: announced before it builds on anything, alive by its heartbeat, ended after its point
 * (docs/formats/vault.md, "Writing a point"). What it must not build on is told by `condemned`.
 */
import { AgentError } from '../../base/errors.ts';
import { newId } from '../ids.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { sampleAgrees } from '../index/agree.ts';
import { rebuildIndex } from '../index/rebuild.ts';
import { refreshIndex } from '../index/refresh.ts';
import { isDenied } from '../may-delete.ts';
import type { Point } from '../points/point.ts';
import { putPoint, takeBackPoint } from '../points/points.ts';
import { keepRoom } from '../prune/room.ts';
import { sealDocument } from '../sealed.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';
import { readCondemned } from './condemned.ts';
import { type MapOf, keepMap, wholeMap } from './whole-map.ts';
import { type Owner, thisProcess } from './owner.ts';

/** `writers/WRITER`. */
export interface WriterDocument {
  readonly format: 1;
  readonly started: string;
  readonly owner: Owner;
}

/**
 * What `.end` holds where the writer ended by itself, and where it was declared dead before its point was there; and what
 * heartbeats hold. An empty file takes no room but in its folder, so that a writer can end on a full disk.
 */
export const endMark: Buffer = Buffer.alloc(0);
export const beatContent: Buffer = Buffer.alloc(0);
export const deadMark: Buffer = Buffer.from('dead\n');

/** Packs of which a writer sees, before it counts on any, that the index says of them what they say themselves. */
const packsInSample = 8;
const beatMs = 10 * 60 * 1000;
/** Longest time for a last word to a store that may not answer, milliseconds. */
export const partingMs = 5_000;

export interface BeginOptions {
  readonly signal?: AbortSignal | undefined;
  /** For tests. */
  readonly owner?: Owner | undefined;
}

export class WriterSession {
  /** Also the id of the point that it may publish. */
  readonly id: string;
  /** Ids of packs on which nothing may be built: what only they hold counts as absent. */
  readonly condemned: ReadonlySet<string>;
  readonly #vault: Vault;
  readonly #index: ChunkIndex;
  /** Of the index, when it was last known that all that is in it is in the store. */
  readonly #state: string;
  readonly #beat: NodeJS.Timeout;
  /** A put of the point was begun, and its outcome is not known: it may still take effect. */
  #isInDoubt = false;

  private constructor(
    vault: Vault,
    index: ChunkIndex,
    own: { id: string; condemned: ReadonlySet<string>; state: string; beat: NodeJS.Timeout },
  ) {
    this.#vault = vault;
    this.#index = index;
    this.id = own.id;
    this.condemned = own.condemned;
    this.#state = own.state;
    this.#beat = own.beat;
  }

  /** Announces the writer, learns what is condemned, and brings the index up to date. */
  static async begin(
    vault: Vault,
    index: ChunkIndex,
    { owner, ...options }: BeginOptions = {},
  ): Promise<WriterSession> {
    const id = newId();
    const document: WriterDocument = {
      format: 1,
      started: new Date().toISOString(),
      owner: owner ?? (await thisProcess()),
    };
    const key = `writers/${id}`;
    // The first index of a large vault takes long.
    const beat = startBeating(vault, id);
    try {
      await vault.store.put(key, sealDocument(vault.secrets, key, document), { ...options, isNew: true });
      const condemned = await readCondemned(vault, options);
      const begun = Date.now();
      await refreshIndex(vault, index, options);
      if (!(await sampleAgrees(vault, index, packsInSample, options)))
        await rebuildIndex(vault, index, begun, options);
      await keepRoom(vault);
      return new WriterSession(vault, index, { id, condemned, state: index.state, beat });
    } catch (error) {
      clearInterval(beat);
      // Nothing was built on: nobody has to wait for it, also where the announcement takes effect late.
      const signal = AbortSignal.timeout(partingMs);
      await vault.store.put(`writers/${id}.end`, endMark, { signal }).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Whether the writer can build on this map: all that it names is in packs that stay. What only condemned packs hold is
   * stored once more. `level`: zstd's.
   */
  keep(
    image: MapOf,
    options: { readonly level?: number; readonly signal?: AbortSignal } = {},
  ): Promise<boolean> {
    const { id: writer, condemned } = this;
    return keepMap(this.#vault, this.#index, image, { writer, condemned, ...options });
  }

  /**
   * Makes the point appear; everything that it names is durable already. Its id is that of the session. Throws
   * VAULT_POINT_WITHDRAWN where what the point rests on is not in this store (any more: the writer had been declared dead
   * meanwhile), or where another course of events has published under its id; then there is no point of this job.
   */
  async publish(point: Point): Promise<void> {
    if (point.id !== this.id)
      throw new RangeError(`the writer ${this.id} cannot publish the point ${point.id}: the ids are not one`);
    await this.#expectStored(point);
    this.#isInDoubt = true;
    const sealed = await putPoint(this.#vault, point).catch(async (error: unknown) => {
      if (!(error instanceof AgentError)) throw error;
      if (error.code === 'VAULT_FULL') this.#isInDoubt = !(await this.#isCertainlyAbsent());
      if (error.code !== 'VAULT_OBJECT_EXISTS') throw error;
      this.#isInDoubt = false;
      throw otherCourse(this.#vault, error);
    });
    if (!(await this.#isAlive())) await this.#expectWhole(point, sealed);
    this.#isInDoubt = false;
  }

  /** After a failed put of the point. Only a directory (which alone keeps room) ends a put before it reports the failure. */
  async #isCertainlyAbsent(): Promise<boolean> {
    const { store } = this.#vault;
    if (store.room === undefined) return false;
    return store.head(`points/${this.id}`).then(
      (found) => found === undefined,
      () => false,
    );
  }

  /**
   * Nothing is published that rests on packs which a list of this very store does not show. Where nothing has vanished from
   * the index since the writer began, all packs that it ever counted on are in that list.
   */
  async #expectStored(point: Point): Promise<void> {
    await refreshIndex(this.#vault, this.#index);
    if (this.#index.state === this.#state) return;
    for (const { path, ...image } of point.devices)
      if (!(await wholeMap(this.#vault, this.#index, image, this.condemned)))
        throw new AgentError(
          'VAULT_POINT_WITHDRAWN',
          `${this.#vault.name}: chunks of ${path} that the recovery point counts on are not in this store (any more); ` +
            'it was not published',
          {
            hint: 'start the backup again; was the store exchanged, or put back to an earlier state, meanwhile?',
          },
        );
  }

  /** The writer was declared dead: what its point rests on may have been deleted. */
  async #expectWhole(point: Point, sealed: Buffer): Promise<void> {
    // In this order: a list that is finished in between leaves the packs gone, not whole.
    const condemned = await readCondemned(this.#vault);
    await refreshIndex(this.#vault, this.#index);
    for (const device of point.devices)
      if (!(await wholeMap(this.#vault, this.#index, device, condemned))) {
        // Who may add but not delete leaves it to a prune to remove it.
        await takeBackPoint(this.#vault, point.id, sealed).catch(deniedAsUndefined);
        throw withdrawn(this.#vault, `chunks of ${device.path} that it counted on were pruned`);
      }
    if ((await this.#vault.store.head(`points/${point.id}`)) === undefined)
      throw withdrawn(this.#vault, 'a prune found its recovery point incomplete and removed it');
  }

  /** Whether the point may still appear after `publish` has failed: then nothing may be deleted on which it rests. */
  get isInDoubt(): boolean {
    return this.#isInDoubt;
  }

  /** Says that nothing more comes of this writer. */
  async end(options: StoreOptions = {}): Promise<void> {
    clearInterval(this.#beat);
    await this.#vault.store.put(`writers/${this.id}.end`, endMark, options);
  }

  /** Where the outcome of a put of the point is not known: nothing may be deleted on which it would rest. */
  abandon(): void {
    clearInterval(this.#beat);
  }

  async #isAlive(): Promise<boolean> {
    const { store } = this.#vault;
    const [announced, ended] = await Promise.all([
      store.head(`writers/${this.id}`),
      store.head(`writers/${this.id}.end`),
    ]);
    return announced !== undefined && ended === undefined;
  }
}

function startBeating(vault: Vault, id: string): NodeJS.Timeout {
  const beat = setInterval(() => {
    // A heartbeat that fails says nothing: the next one, or the job's own puts, will.
    void vault.store.put(`writers/${id}.beat`, beatContent).catch(() => undefined);
  }, beatMs);
  return beat.unref();
}

function deniedAsUndefined(thrown: unknown): undefined {
  if (isDenied(thrown)) return undefined;
  throw thrown;
}

function withdrawn(vault: Vault, what: string): AgentError {
  return new AgentError(
    'VAULT_POINT_WITHDRAWN',
    `${vault.name}: this writer was declared dead while it worked (it may have been suspended), and ${what}; the ` +
      'recovery point was taken back',
    { hint: 'start the backup again' },
  );
}

/** The memory of this process was put back to a snapshot, or lives in a clone too, and the other one was first. */
function otherCourse(vault: Vault, cause: unknown): AgentError {
  return new AgentError(
    'VAULT_POINT_WITHDRAWN',
    `${vault.name}: another course of events of this machine has published a recovery point under this writer's id; ` +
      'that one stays, and this job has none',
    {
      hint: 'the machine was put back to a snapshot or cloned during a backup: start the backup again',
      cause,
    },
  );
}
