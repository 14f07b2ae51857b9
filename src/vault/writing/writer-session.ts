/**
 * A writer's time in a vault: announced before it builds on anything, alive by its heartbeat, ended after its point
 * (docs/formats/vault.md, "Writing a point"). What it must not build on is told by `condemned`.
 */
import { AgentError } from '../../base/errors.ts';
import { newId } from '../ids.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { refreshIndex } from '../index/refresh.ts';
import { type Point, type PointDevice } from '../points/point.ts';
import { deletePoint, putPoint } from '../points/points.ts';
import { openDocument, sealDocument } from '../sealed.ts';
import type { Vault } from '../vault.ts';
import { wholeMap } from './whole-map.ts';
import { type Owner, thisProcess } from './owner.ts';

/** `writers/WRITER`. */
export interface WriterDocument {
  readonly format: 1;
  readonly started: string;
  readonly owner: Owner;
}

/** `condemned/LIST`. */
export interface CondemnedDocument {
  readonly format: 1;
  readonly created: string;
  /** Ids of packs. */
  readonly packs: readonly string[];
}

const beatMs = 10 * 60 * 1000;

export class WriterSession {
  readonly id: string;
  /** Ids of packs on which nothing may be built: what only they hold counts as absent. */
  readonly condemned: ReadonlySet<string>;
  readonly #vault: Vault;
  readonly #index: ChunkIndex;
  readonly #beat: NodeJS.Timeout;

  private constructor(vault: Vault, index: ChunkIndex, id: string, condemned: ReadonlySet<string>) {
    this.#vault = vault;
    this.#index = index;
    this.id = id;
    this.condemned = condemned;
    this.#beat = setInterval(() => {
      // A heartbeat that fails says nothing: the next one, or the job's own puts, will.
      void vault.store.put(`writers/${id}.beat`, Buffer.from('\n')).catch(() => undefined);
    }, beatMs);
    this.#beat.unref();
  }

  /** Announces the writer, learns what is condemned, and brings the index up to date. */
  static async begin(
    vault: Vault,
    index: ChunkIndex,
    options: { readonly signal?: AbortSignal } = {},
  ): Promise<WriterSession> {
    const id = newId();
    const document: WriterDocument = {
      format: 1,
      started: new Date().toISOString(),
      owner: await thisProcess(),
    };
    const key = `writers/${id}`;
    await vault.store.put(key, sealDocument(vault.secrets, key, document), options);
    const session = new WriterSession(vault, index, id, await readCondemned(vault, options));
    try {
      await refreshIndex(vault, index, options);
      return session;
    } catch (error) {
      await session.end().catch(() => undefined);
      throw error;
    }
  }

  /**
   * Makes the point appear; everything that it names is durable already. Throws VAULT_POINT_WITHDRAWN where the
   * writer had been declared dead meanwhile and what the point rests on is gone; then there is no point.
   */
  async publish(point: Point): Promise<void> {
    await putPoint(this.#vault, point);
    if (await this.#isAlive()) return;
    await refreshIndex(this.#vault, this.#index);
    const condemned = await readCondemned(this.#vault);
    for (const device of point.devices)
      if (!(await wholeMap(this.#vault, this.#index, device, condemned))) {
        await deletePoint(this.#vault, point.id);
        throw withdrawn(this.#vault, device);
      }
  }

  /** Says that nothing more comes of this writer. */
  async end(): Promise<void> {
    clearInterval(this.#beat);
    await this.#vault.store.put(`writers/${this.id}.end`, Buffer.from('\n'));
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

/** The packs of all condemned lists. */
export async function readCondemned(
  vault: Vault,
  options: { readonly signal?: AbortSignal } = {},
): Promise<Set<string>> {
  const packs = new Set<string>();
  for await (const { key } of vault.store.list('condemned/', options)) {
    if (!/^condemned\/[0-9a-f]{32}$/.test(key)) continue;
    let sealed;
    try {
      sealed = await vault.store.get(key, options);
    } catch (error) {
      // Its packs are deleted, and the list with them: the index will not find them either.
      if (error instanceof AgentError && error.code === 'VAULT_OBJECT_MISSING') continue;
      throw error;
    }
    const document = openDocument(vault.secrets, key, sealed) as CondemnedDocument;
    for (const pack of document.packs) packs.add(pack);
  }
  return packs;
}

function withdrawn(vault: Vault, device: PointDevice): AgentError {
  return new AgentError(
    'VAULT_POINT_WITHDRAWN',
    `${vault.name}: this writer was declared dead while it worked (it may have been suspended), and chunks of ` +
      `${device.path} that it counted on were pruned; the recovery point was taken back`,
    { hint: 'start the backup again' },
  );
}
