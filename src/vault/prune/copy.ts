/**
 * Copies what is needed out of packs that are going to be deleted. A pack is read as a whole, and what is needed of
 * it and not elsewhere goes to new packs. A pack from which something needed cannot be got is not to be deleted.
 * A pack that is gone was deleted by another pruner, who had copied what is needed of it (docs/formats/vault.md,
 * "Pruning", on two pruners at once); that is no damage. Where the store has no room for a copy, those that are whole by
 * then are named, so that their packs can go and make room.
 */
import { AgentError } from '../../base/errors.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { type PackKind, packObject } from '../packs/format.ts';
import { PackWriter } from '../packs/pack-writer.ts';
import { openPack, readDirectory } from '../packs/read-pack.ts';
import type { Vault } from '../vault.ts';
import type { Needed } from './usage.ts';

export interface CopyOptions {
  /** Id of the pruner, under which its packs are. */
  readonly writer: string;
  /** Ids of packs that count as absent: those that are copied from among them. */
  readonly condemned: ReadonlySet<string>;
  /** zstd's, 1 to 19. */
  readonly level?: number | undefined;
  /** Makes the copies of each pack durable before the next one is read, which takes less room at a time. */
  readonly oneByOne?: boolean | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Packs done so far. */
  readonly progress?: ((packs: number) => void) | undefined;
}

export interface Copied {
  readonly packs: number;
  readonly parts: number;
  /** Bytes of the packs that were written. */
  readonly bytes: number;
  /** Packs with parts that are needed, are nowhere else, and cannot be opened. */
  readonly damaged: readonly { readonly pack: string; readonly reason: string }[];
  /** Packs that were not there any more. */
  readonly gone: readonly string[];
  /** Packs of which all that is needed is elsewhere now. */
  readonly complete: readonly string[];
  /** The store had no room for more: there are packs that are not complete. */
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

/** Of these packs those of which all that is needed is in others that are durable. */
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
