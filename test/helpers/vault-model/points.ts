/** The model's table of points: what each holds, and what may be expected of it. */
import type { CheckResult } from '../../../src/vault/check/check-vault.ts';
import type { Point, PointDevice } from '../../../src/vault/points/point.ts';
import { dataParts } from '../../../src/vault/store/object-store.ts';
import type { MemoryStore } from '../stores/memory-store.ts';
import type { TestImage } from '../vault-writer.ts';

/** An image, and the device of a point with the root of its map. */
export interface Content {
  readonly image: TestImage;
  readonly device: PointDevice;
}

/**
 * `begun`: its writer may put it. `live`: it exists and must be whole. `doubtful`: it came when its writer counted as
 * stale. It may be incomplete until its writer ends or takes it back. `forgotten`: it has no more use.
 */
export interface ModelPoint {
  content: Content;
  state: 'begun' | 'live' | 'doubtful' | 'forgotten';
  /** It was so at any time. */
  wasDoubtful: boolean;
  isWriterAtWork: boolean;
  /** Its writer was declared dead when the point was there, and before the writer had looked: it may take it back. */
  mayBeTakenBack: boolean;
  isProtected: boolean;
}

/** By id. */
export class ModelPoints extends Map<string, ModelPoint> {
  readonly #count: (what: string) => void;
  /** Equal contents always give the same root. */
  readonly #byRoot = new Map<string, Content>();

  constructor(count: (what: string) => void) {
    super();
    this.#count = count;
  }

  /** Its writer is about to put it. */
  begin(id: string, content: Content): ModelPoint {
    this.#byRoot.set(content.device.root, content);
    const point: ModelPoint = {
      ...{ content, state: 'begun', wasDoubtful: false, isProtected: false },
      ...{ isWriterAtWork: true, mayBeTakenBack: false },
    };
    this.set(id, point);
    return point;
  }

  live(): [string, ModelPoint][] {
    return [...this].filter(([, { state }]) => state === 'live');
  }

  /** Returns the store that keeps the table up to date. `open` opens a sealed document. */
  watching(store: MemoryStore, open: (key: string, sealed: Buffer) => unknown): MemoryStore {
    return {
      ...store,
      put: async (key, data, options) => {
        const point = /^points\/(.*)$/.exec(key)?.[1];
        if (point !== undefined)
          this.#lands(point, open(key, Buffer.concat(dataParts(data))) as Point, store);
        await store.put(key, data, options);
        const ended = this.get(/^writers\/(.*)\.end$/.exec(key)?.[1] ?? '');
        if (ended?.state === 'live' && ended.isWriterAtWork) ended.mayBeTakenBack = true;
      },
      delete: async (key, options) => {
        await store.delete(key, options);
        const point = this.get(/^points\/(.*)$/.exec(key)?.[1] ?? '');
        // A writer of another course of events may publish under the same id afterwards.
        const isTakenBack = point?.state === 'doubtful' || (point?.state === 'live' && point.mayBeTakenBack);
        if (point === undefined || !isTakenBack) return;
        point.state = 'forgotten';
        this.#count('taken back');
      },
    };
  }

  /** Right before the object is there. */
  #lands(id: string, { devices }: Point, { objects }: MemoryStore): void {
    const point = this.get(id);
    if (point?.state !== 'begun') return;
    // After random numbers repeated, it may be the point of another writer, whose put came late.
    point.content = this.#byRoot.get(devices[0]!.root)!;
    const countsAsDead = objects.has(`writers/${id}.end`) || !objects.has(`writers/${id}`);
    point.state = countsAsDead ? 'doubtful' : 'live';
    point.wasDoubtful = countsAsDead;
    this.#count(countsAsDead ? 'point lands doubtful' : 'point lands');
  }

  /** Nothing is ever damaged here, but points that came when their writer counted as dead may lack something. */
  judge({ points, damagedPacks, damagedObjects, foreign }: CheckResult): void {
    for (const { point, whole } of points)
      if (!whole && this.get(point)?.wasDoubtful !== true)
        throw new Error(`check says that the point ${point} is not whole`);
    const wrong = { damagedPacks, damagedObjects, foreign };
    if (Object.values(wrong).some(({ length }) => length > 0))
      throw new Error(`check says that there is damage: ${JSON.stringify(wrong)}`);
  }
}
