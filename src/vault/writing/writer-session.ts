/**
 * The session of a writer in a vault. It is announced before it references any data, kept alive by its heartbeat, and
 * ended after its point (docs/formats/vault.md, "Writing a point"). `condemned` lists the packs that it must not
 * reference.
 */
import { AgentError } from '../../base/errors.ts';
import { newId } from '../ids.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { sampleAgrees } from '../index/agree.ts';
import { provenWalk } from '../index/proven.ts';
import { rebuildIndex } from '../index/rebuild.ts';
import { refreshIndex } from '../index/refresh.ts';
import { isDenied } from '../delete-permission.ts';
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
 * Content of heartbeats and of `.end`, which marks a writer that ended or was declared stale before its point was
 * published. An empty file needs only space in its directory, so a writer can end on a full disk.
 */
export const endMark: Buffer = Buffer.alloc(0);
export const beatContent: Buffer = Buffer.alloc(0);
export const staleMark: Buffer = Buffer.from('dead\n');

/** Number of packs whose index entries a writer compares with the packs before it relies on any. */
const packsInSample = 8;
const beatMs = 10 * 60 * 1000;
/** Time limit for ending the session on a store that may not answer, in milliseconds. */
export const partingMs = 5_000;

export interface BeginOptions {
  readonly signal?: AbortSignal | undefined;
  /** For tests. */
  readonly owner?: Owner | undefined;
}

export class WriterSession {
  /** Also the ID of the point that it may publish. */
  readonly id: string;
  /** IDs of packs that must not be referenced. Data that only they hold counts as absent. */
  readonly condemned: ReadonlySet<string>;
  readonly #vault: Vault;
  readonly #index: ChunkIndex;
  /** State of the index when all of its content was last known to be in the store. */
  readonly #state: string;
  readonly #beat: NodeJS.Timeout;
  /** A put of the point was started and its outcome is unknown: the point may still appear. */
  #mayStillAppear = false;

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

  /** Announces the writer, reads the condemned lists, and updates the index. */
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
    // The first index of a large vault takes long to build.
    const beat = startBeating(vault, id);
    try {
      await vault.store.put(key, sealDocument(vault.secrets, key, document), { ...options, isNew: true });
      const condemned = await readCondemned(vault, options);
      const begun = index.clock.now();
      await refreshIndex(vault, index, options);
      if (!(await sampleAgrees(vault, index, packsInSample, options)))
        await rebuildIndex(vault, index, begun, options);
      await keepRoom(vault);
      return new WriterSession(vault, index, { id, condemned, state: index.state, beat });
    } catch (error) {
      clearInterval(beat);
      // The ID belongs to another writer, which may be at work.
      if (error instanceof AgentError && error.code === 'VAULT_OBJECT_EXISTS') throw error;
      // The session references no data, so no process has to wait for it, even if the announcement takes effect late.
      const signal = AbortSignal.timeout(partingMs);
      await vault.store.put(`writers/${id}.end`, endMark, { signal }).catch(() => undefined);
      throw error;
    }
  }

  /**
   * Returns whether the writer can build on this map: all of its data is in packs that stay. Data that only condemned
   * packs hold is stored again. `level` is the zstd level.
   */
  keep(
    image: MapOf,
    options: { readonly level?: number; readonly signal?: AbortSignal } = {},
  ): Promise<boolean> {
    const { id: writer, condemned } = this;
    return provenWalk(this.#vault, this.#index, {
      walk: () => keepMap(this.#vault, this.#index, image, { writer, condemned, ...options }),
      isWhole: (isKept) => isKept,
      signal: options.signal,
    });
  }

  /**
   * Publishes the point. All data that it references must be durable. Its ID is the session's ID. Throws
   * VAULT_POINT_WITHDRAWN if referenced data is not in this store, for example because the writer was declared stale.
   * It is also thrown if a clone of this process has published under the same ID. Then this job has no point.
   */
  async publish(point: Point): Promise<void> {
    if (point.id !== this.id)
      throw new RangeError(`the writer ${this.id} cannot publish the point ${point.id}: the IDs differ`);
    await this.#expectStored(point);
    this.#mayStillAppear = true;
    const sealed = await putPoint(this.#vault, point).catch(async (error: unknown) => {
      if (!(error instanceof AgentError)) throw error;
      if (error.code === 'VAULT_FULL') this.#mayStillAppear = !(await this.#isCertainlyAbsent());
      if (error.code !== 'VAULT_OBJECT_EXISTS') throw error;
      this.#mayStillAppear = false;
      throw otherCourse(this.#vault, error);
    });
    if (!(await this.#isAlive())) await this.#expectWhole(point, sealed);
    this.#mayStillAppear = false;
  }

  /**
   * Checks after a failed put of the point. Only a directory, which alone has reserved room, completes a put before
   * it reports the failure.
   */
  async #isCertainlyAbsent(): Promise<boolean> {
    const { store } = this.#vault;
    if (store.room === undefined) return false;
    return store.head(`points/${this.id}`).then(
      (found) => found === undefined,
      () => false,
    );
  }

  /**
   * Publishes nothing that references packs missing from a listing of this store. If nothing has vanished from the
   * index since the writer began, all packs that it ever used are in that listing.
   */
  async #expectStored(point: Point): Promise<void> {
    await refreshIndex(this.#vault, this.#index);
    if (this.#index.state === this.#state) return;
    for (const { path, ...image } of point.devices)
      if (!(await this.#isWhole(image, this.condemned)))
        throw new AgentError(
          'VAULT_POINT_WITHDRAWN',
          `${this.#vault.name}: chunks of ${path} that the recovery point needs are not in this store; ` +
            'it was not published',
          {
            hint: 'start the backup again; check whether the store was exchanged or restored to an earlier state',
          },
        );
  }

  /** The writer was declared stale, so data that its point references may be deleted. */
  async #expectWhole(point: Point, sealed: Buffer): Promise<void> {
    // The order matters: if a list is completed in between, its packs are already missing from the index.
    const condemned = await readCondemned(this.#vault);
    await refreshIndex(this.#vault, this.#index);
    for (const device of point.devices)
      if (!(await this.#isWhole(device, condemned))) {
        // With credentials that may not delete, a later prune removes the point.
        await takeBackPoint(this.#vault, point.id, sealed).catch(deniedAsUndefined);
        throw withdrawn(this.#vault, `chunks of ${device.path} that it references were pruned`);
      }
    if ((await this.#vault.store.head(`points/${point.id}`)) === undefined)
      throw withdrawn(this.#vault, 'a prune found its recovery point incomplete and removed it');
  }

  /** Returns whether the packs of this store, without the condemned ones, have all data of the image. */
  #isWhole(image: MapOf, condemned: ReadonlySet<string>): Promise<boolean> {
    return provenWalk(this.#vault, this.#index, {
      walk: () => wholeMap(this.#vault, this.#index, image, condemned),
      isWhole: (isWhole) => isWhole,
    });
  }

  /** True if the point may still appear after `publish` failed. Then no data that it references may be deleted. */
  get mayStillAppear(): boolean {
    return this.#mayStillAppear;
  }

  /** Marks the writer as ended. */
  async end(options: StoreOptions = {}): Promise<void> {
    clearInterval(this.#beat);
    await this.#vault.store.put(`writers/${this.id}.end`, endMark, options);
  }

  /**
   * Use it if the outcome of a put of the point is unknown: the heartbeat stops, but the writer is not marked as
   * ended, so its data is not deleted.
   */
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
    // A failed heartbeat is ignored. The next one or the job's own puts will report the problem.
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
    `${vault.name}: this writer was declared stale while it worked (it may have been suspended), and ${what}; the ` +
      'recovery point was withdrawn',
    { hint: 'start the backup again' },
  );
}

/**
 * The memory of this process was restored from a snapshot or is also running in a clone, and the other one published
 * first.
 */
function otherCourse(vault: Vault, cause: unknown): AgentError {
  return new AgentError(
    'VAULT_POINT_WITHDRAWN',
    `${vault.name}: a clone or snapshot of this machine has published a recovery point under this writer's ID; ` +
      'that point stays, and this job has none',
    {
      hint: 'the machine was restored from a snapshot or cloned during the backup; start the backup again',
      cause,
    },
  );
}
