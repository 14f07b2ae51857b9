/**
 * Copies live data out of packs that will be deleted. Each pack is read as a whole, and its live parts that are in no
 * other pack go to new packs. If a live part cannot be read, its pack must not be deleted.
 *
 * If a pack is gone, another pruner has deleted it after copying its live data; this is not damage
 * (docs/formats/vault.md, "Pruning", on two pruners at once). If the store has no room for a copy, the packs whose
 * copies are complete are returned, so they can be deleted to make room.
 */
import { AgentError } from '../../base/errors.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { type PackKind, packObject } from '../packs/format.ts';
import { PackWriter } from '../packs/pack-writer.ts';
import { openPack, readDirectory } from '../packs/read-pack.ts';
import type { Vault } from '../vault.ts';
import type { Needed } from './pack-usage.ts';

export interface CopyOptions {
  /** ID of the pruner that owns the new packs. */
  readonly writer: string;
  /** IDs of packs that count as absent, including the packs to copy. */
  readonly condemned: ReadonlySet<string>;
  /** zstd level, from 1 to 19. */
  readonly level?: number | undefined;
  /** Makes the copies of each pack durable before the next pack is read. This needs less room at a time. */
  readonly oneByOne?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Number of packs done so far. */
  readonly progress?: ((packs: number) => void) | undefined;
}

export interface Copied {
  readonly packs: number;
  readonly parts: number;
  /** Bytes of the new packs. */
  readonly bytes: number;
  /** Packs with live parts that are in no other pack and cannot be read. */
  readonly damaged: readonly { readonly pack: string; readonly reason: string }[];
  /** Packs that no longer existed. */
  readonly gone: readonly string[];
  /** Packs whose live data is all in other packs now. */
  readonly complete: readonly string[];
  /** The store had no room, so some packs are not complete. */
  readonly isFull: boolean;
}

/** When it resolves, the copies are durable and in the index. */
export async function copyNeeded(
  vault: Vault,
  index: ChunkIndex,
  packs: readonly string[],
  needed: Needed,
  options: CopyOptions,
): Promise<Copied> {
  const { writer, condemned, level, oneByOne, signal } = options;
  const writers = new Map<PackKind, PackWriter>();
  const damaged: { pack: string; reason: string }[] = [];
  const gone: string[] = [];
  const read: string[] = [];
  let isFull = false;
  let done = 0;
  for (const pack of packs) {
    signal?.throwIfAborted();
    try {
      const source = openPack(vault, pack, await vault.store.get(packObject(pack), { signal }));
      const { kind } = source.directory;
      let to = writers.get(kind);
      if (to === undefined) {
        to = new PackWriter(vault, index, { kind, writer, condemned, level, signal });
        writers.set(kind, to);
      }
      for (const opened of source.parts()) {
        if (!needed.has(opened.part.name) || to.has(opened.part.name)) continue;
        if ('error' in opened) throw opened.error;
        const wait = to.add(opened.part.name, opened.plain);
        if (wait !== undefined) await wait;
      }
      read.push(pack);
      if (oneByOne === true) await to.seal();
    } catch (error) {
      if (!(error instanceof AgentError)) throw error;
      if (isNoRoom(error)) {
        isFull = true;
        break;
      }
      if (error.code === 'VAULT_OBJECT_MISSING') gone.push(pack);
      else if (error.code === 'VAULT_DAMAGED') damaged.push({ pack, reason: error.message });
      else throw error;
    }
    options.progress?.(++done);
  }
  let [count, parts, bytes] = [0, 0, 0];
  for (const each of writers.values()) {
    try {
      await each.seal();
    } catch (error) {
      if (!isNoRoom(error)) throw error;
      isFull = true;
    }
    count += each.counts.packs;
    parts += each.counts.chunks;
    bytes += each.counts.packBytes;
  }
  const complete = isFull ? await whole(vault, index, read, needed, options) : read;
  return { packs: count, parts, bytes, damaged, gone, complete, isFull };
}

function isNoRoom(error: unknown): boolean {
  return error instanceof AgentError && error.code === 'VAULT_FULL';
}

/** Returns those of the packs whose live data is all in other, durable packs. */
async function whole(
  vault: Vault,
  index: ChunkIndex,
  packs: readonly string[],
  needed: Needed,
  { condemned, signal }: CopyOptions,
): Promise<string[]> {
  const complete: string[] = [];
  for (const pack of packs) {
    const { parts } = await readDirectory(vault, pack, { signal });
    if (parts.every(({ name }) => !needed.has(name) || index.hasLive(name, condemned))) complete.push(pack);
  }
  return complete;
}
