/** A writer whose store stops answering while it begins ends as soon as it is cancelled, at any request. */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { ChunkIndex } from '../index/chunk-index.ts';
import { newKeyFileText } from '../key-material.ts';
import { openMemoryStore } from '../../../test/helpers/stores/memory-store.ts';
import type { ObjectStore } from '../store/object-store.ts';
import { type StoreRequest, WrappedStore } from '../store/wrapped-store.ts';
import { Vault } from '../vault.ts';
import { WriterSession } from './writer-session.ts';

/** A store that answers nothing from the request `hangs` on. Waiting requests end with their signal. */
class HangingStore extends WrappedStore {
  readonly asked: string[] = [];
  readonly #hangs: string;
  readonly #onHang: () => void;
  #hanging = false;

  constructor(inner: ObjectStore, hangs: string, onHang: () => void) {
    super(inner);
    this.#hangs = hangs;
    this.#onHang = onHang;
  }

  protected async around<T>(what: StoreRequest, request: () => Promise<T>): Promise<T> {
    await this.#pass(what);
    return request();
  }

  protected async *walk<T>(
    what: StoreRequest,
    begin: (after: string | undefined) => AsyncIterable<T>,
  ): AsyncIterable<T> {
    await this.#pass(what);
    yield* begin(undefined);
  }

  async #pass({ kind, key, signal }: StoreRequest): Promise<void> {
    this.asked.push(`${kind} ${key.replace(/[0-9a-f]{32}/, 'ID')}`);
    if (!this.#hanging && this.asked.at(-1) !== this.#hangs) return;
    this.#hanging = true;
    await new Promise<never>((_, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason as Error));
      setImmediate(this.#onHang);
    });
  }
}

for (const hangs of ['put writers/ID', 'list condemned/', 'list packs/'])
  test(`cancelled at ${hangs}`, { timeout: 30_000 }, async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'writer-session-'));
    t.after(() => rmSync(directory, { recursive: true }));
    const key = { kind: 'file', text: newKeyFileText() } as const;
    const inner = openMemoryStore();
    await Vault.init(inner, { keys: [{ material: key }] });
    const cancelling = new AbortController();
    const reason = new Error('enough');
    const store = new HangingStore(inner, hangs, () => cancelling.abort(reason));
    const vault = await Vault.open(store, key);
    const index = ChunkIndex.open(join(directory, 'index'), vault.id);
    t.after(() => index.close());
    await assert.rejects(WriterSession.begin(vault, index, { signal: cancelling.signal }), reason);
    // It marks its end, because the announcement may arrive later, and does not wait long for the answer.
    assert.equal(store.asked.at(-1), 'put writers/ID.end');
  });
