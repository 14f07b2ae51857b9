/**
 * Measures the live data of each pack with one walk over the index in the order of names, compared with the live set.
 * It keeps a few numbers per pack in memory (10 TiB have 640,000 packs). Packs are deleted based on this, and the
 * index is only a cache. So the walk verifies the checksum of every row, and that no row of a pack is missing.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { type PartRow, RowCheck, rowSlices } from '../index/rows.ts';
import {
  type PackKind,
  directoryEntryLength,
  directoryHeadLength,
  headerLength,
  tagLength,
  trailerLength,
} from '../packs/format.ts';

export interface PackUsage {
  readonly id: string;
  readonly kind: PackKind;
  readonly writer: string;
  /** Bytes of the object. */
  readonly size: number;
  readonly parts: number;
  /** Number of live parts that no earlier pack counts. */
  readonly liveParts: number;
  /** Bytes of a pack with only these parts; 0 if there are none. */
  readonly liveBytes: number;
}

export interface VaultUsage {
  /** Without condemned packs. */
  readonly packs: readonly PackUsage[];
  /** Condemned packs with live parts that no other pack has. */
  readonly rescue: ReadonlySet<string>;
  /** Bytes before compression of all live parts, each counted once. */
  readonly livePlainBytes: number;
}

export interface UsageOptions {
  readonly condemned: ReadonlySet<string>;
  readonly signal?: AbortSignal | undefined;
  /** Number of parts done so far. */
  readonly progress?: ((parts: number) => void) | undefined;
}

const frameLength = headerLength + directoryHeadLength + tagLength + trailerLength;

/** Tells which names are live: a `LiveSet`. */
export interface Needed {
  has(name: Uint8Array): boolean;
}

/** Throws VAULT_INDEX_DAMAGED; then the index must be rebuilt. */
export async function measureUsage(
  index: ChunkIndex,
  live: Needed,
  { condemned, signal, progress }: UsageOptions,
): Promise<VaultUsage> {
  const table = new PackTable(index, condemned);
  const rescue = new Set<string>();
  let livePlainBytes = 0;
  let looked = 0;
  for (const rows of rowSlices(index)) {
    signal?.throwIfAborted();
    for (const row of rows) table.see(row);
    for (const copies of groups(rows)) {
      const [first] = copies;
      if (first === undefined || !live.has(first.name)) continue;
      const known = copies.filter(({ pack }) => table.has(pack));
      const keeper = known.find(({ pack }) => !table.isCondemned(pack));
      if (known.length > 0) livePlainBytes += first.plain;
      if (keeper !== undefined) table.count(keeper.pack, keeper.encoded);
      else for (const { pack } of known) rescue.add(table.idOf(pack));
    }
    looked += rows.length;
    progress?.(looked);
    await turn();
  }
  table.expectAllSeen();
  return { packs: table.usage(), rescue, livePlainBytes };
}

function* groups(rows: readonly PartRow[]): Generator<PartRow[]> {
  for (let at = 0; at < rows.length;) {
    const name = Buffer.from(rows[at]!.name);
    let end = at + 1;
    while (end < rows.length && name.equals(rows[end]!.name)) end++;
    yield rows.slice(at, end);
    at = end;
  }
}

/** The packs of the index, by their number in it, and their live parts. */
class PackTable {
  readonly #rows: RowCheck;
  readonly #condemned: readonly boolean[];
  readonly #liveParts: number[];
  readonly #liveBytes: number[];

  constructor(index: ChunkIndex, condemned: ReadonlySet<string>) {
    this.#rows = new RowCheck(index);
    const { packs } = this.#rows;
    this.#condemned = packs.map(({ id }) => condemned.has(id));
    this.#liveParts = packs.map(() => 0);
    this.#liveBytes = packs.map(() => 0);
  }

  has(number: number): boolean {
    return this.#rows.slotOf(number) !== undefined;
  }

  see(row: PartRow): void {
    this.#rows.see(row);
  }

  expectAllSeen(): void {
    this.#rows.expectAllSeen();
  }

  isCondemned(number: number): boolean {
    return this.#condemned[this.#rows.slotOf(number)!]!;
  }

  idOf(number: number): string {
    return this.#rows.packs[this.#rows.slotOf(number)!]!.id;
  }

  count(number: number, encoded: number): void {
    const slot = this.#rows.slotOf(number)!;
    this.#liveParts[slot]!++;
    this.#liveBytes[slot]! += encoded + tagLength + directoryEntryLength;
  }

  usage(): PackUsage[] {
    return this.#rows.packs.flatMap(({ id, kind, writer, size, parts }, slot) => {
      if (this.#condemned[slot] === true) return [];
      const liveParts = this.#liveParts[slot]!;
      const liveBytes = liveParts === 0 ? 0 : this.#liveBytes[slot]! + frameLength;
      return [{ id, kind, writer, size, parts, liveParts, liveBytes }];
    });
  }
}
