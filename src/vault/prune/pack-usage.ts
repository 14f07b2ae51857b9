/**
 * Measures the live data of each pack with one walk over the index in the order of names, compared with the live set.
 * It keeps a few numbers per pack in memory (10 TiB have 640,000 packs). Packs are deleted based on this, and the
 * index is only a cache. So the walk verifies the checksum of every row, and that no row of a pack is missing.
 */
import { setImmediate as turn } from 'node:timers/promises';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { partSum } from '../index/row-sums.ts';
import { AlteredRow } from '../index/schema.ts';
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

const sliceRows = 4096;
const columns = 'name, pack, offset, encoded, plain, encoding, sum';
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
  for (const rows of slices(index)) {
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

interface Row {
  readonly name: Uint8Array;
  readonly pack: number;
  readonly offset: number;
  readonly encoded: number;
  readonly plain: number;
  readonly encoding: number;
  readonly sum: number;
}

/** Yields all rows by name. Rows of one name are in one slice. */
function* slices(index: ChunkIndex): Generator<Row[]> {
  const select = index.database.prepare(
    `SELECT ${columns} FROM parts WHERE name > ? ORDER BY name, pack LIMIT ${sliceRows}`,
  );
  const rest = index.database.prepare(
    `SELECT ${columns} FROM parts WHERE name = ? AND pack > ? ORDER BY pack`,
  );
  for (let last: Uint8Array = new Uint8Array(0); ;) {
    const rows = index.guard(() => select.all(last)) as unknown as Row[];
    const final = rows.at(-1);
    if (final === undefined) return;
    if (rows.length === sliceRows)
      rows.push(...(index.guard(() => rest.all(final.name, final.pack)) as unknown as Row[]));
    yield rows;
    last = final.name;
  }
}

function* groups(rows: readonly Row[]): Generator<Row[]> {
  for (let at = 0; at < rows.length;) {
    const name = Buffer.from(rows[at]!.name);
    let end = at + 1;
    while (end < rows.length && name.equals(rows[end]!.name)) end++;
    yield rows.slice(at, end);
    at = end;
  }
}

/** The packs of the index, by their number in it. */
class PackTable {
  readonly #index: ChunkIndex;
  readonly #slots = new Map<number, number>();
  readonly #numbers: number[] = [];
  /** Number of rows not seen yet. */
  readonly #unseen: number[] = [];
  readonly #packs: { id: string; kind: PackKind; writer: string; size: number; parts: number }[] = [];
  readonly #condemned: boolean[] = [];
  readonly #liveParts: number[] = [];
  readonly #liveBytes: number[] = [];

  constructor(index: ChunkIndex, condemned: ReadonlySet<string>) {
    this.#index = index;
    const select = index.database.prepare('SELECT number, id, entries FROM packs');
    const found = new Map(
      index
        .guard(() => select.all())
        .map((row) => [hex(row['id']), { number: Number(row['number']), entries: Number(row['entries']) }]),
    );
    for (const pack of index.packs()) {
      const { number, entries } = found.get(pack.id) ?? {};
      if (number === undefined) continue;
      this.#slots.set(number, this.#packs.length);
      this.#numbers.push(number);
      this.#unseen.push(entries!);
      this.#packs.push(pack);
      this.#condemned.push(condemned.has(pack.id));
      this.#liveParts.push(0);
      this.#liveBytes.push(0);
    }
  }

  has(number: number): boolean {
    return this.#slots.has(number);
  }

  /** Ignores rows of packs that are newer or gone. */
  see(row: Row): void {
    const slot = this.#slots.get(row.pack);
    if (slot === undefined) return;
    const { id, kind } = this.#packs[slot]!;
    const place = {
      offset: row.offset,
      encodedLength: row.encoded,
      plainLength: row.plain,
      encoding: row.encoding === 1 ? 1 : 0,
    } as const;
    const sum = partSum(row.name, Buffer.from(id, 'hex'), kind, place);
    this.#index.guard(() => {
      if (row.sum !== sum) throw new AlteredRow('a part was altered');
    });
    this.#unseen[slot]!--;
  }

  /** Packs that were dropped in the meantime may have lost their rows. */
  expectAllSeen(): void {
    const lacking = this.#unseen.findIndex(
      (count, slot) => count !== 0 && this.#index.numberOf(this.#packs[slot]!.id) === this.#numbers[slot],
    );
    this.#index.guard(() => {
      if (lacking >= 0) throw new AlteredRow('parts of a pack are missing');
    });
  }

  isCondemned(number: number): boolean {
    return this.#condemned[this.#slots.get(number)!]!;
  }

  idOf(number: number): string {
    return this.#packs[this.#slots.get(number)!]!.id;
  }

  count(number: number, encoded: number): void {
    const slot = this.#slots.get(number)!;
    this.#liveParts[slot]!++;
    this.#liveBytes[slot]! += encoded + tagLength + directoryEntryLength;
  }

  usage(): PackUsage[] {
    return this.#packs.flatMap(({ id, kind, writer, size, parts }, slot) => {
      if (this.#condemned[slot] === true) return [];
      const liveParts = this.#liveParts[slot]!;
      const liveBytes = liveParts === 0 ? 0 : this.#liveBytes[slot]! + frameLength;
      return [{ id, kind, writer, size, parts, liveParts, liveBytes }];
    });
  }
}

function hex(value: unknown): string {
  return Buffer.from(value as Uint8Array).toString('hex');
}
