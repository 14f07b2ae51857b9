/**
 * Checking a vault (docs/formats/vault.md, "Check and repair"): which packs are damaged or missing, which points that
 * concerns and where, and which points remain whole. Changes nothing in the vault; runs beside writers and prunes.
 */
import type { AgentError } from '../../base/errors.ts';
import { listKeys } from '../keys.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { againIfDamaged } from '../index/damaged.ts';
import { refreshIndex } from '../index/refresh.ts';
import { packObject } from '../packs/format.ts';
import { PartReader } from '../packs/part-reader.ts';
import { listChecks } from '../points/checks.ts';
import type { Point } from '../points/point.ts';
import { listKeys as listPointKeys } from '../points/objects.ts';
import { listPoints } from '../points/points.ts';
import type { Vault } from '../vault.ts';
import { readCondemnedLists } from '../writing/condemned.ts';
import { objectKind } from './objects.ts';
import { type DamagedPack, PackCheck } from './packs.ts';
import { type DeviceCheck, PointWalk } from './point-walk.ts';

export type { DamagedPack } from './packs.ts';
export type { DeviceCheck } from './point-walk.ts';

export type CheckStep = 'packs' | 'points';

export interface CheckOptions {
  /** Opens what is in the packs too, not their directories alone. */
  readonly readData?: boolean | undefined;
  /** With `readData`: share of the packs that are read, picked at random. Default 1. */
  readonly sample?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Packs that were looked at; points that were. */
  readonly progress?: ((step: CheckStep, done: number, total?: number) => void) | undefined;
}

export interface PointResult {
  readonly point: string;
  /** ISO 8601. */
  readonly finished: string;
  readonly machine: string;
  readonly whole: boolean;
  readonly devices: readonly DeviceCheck[];
}

export interface CheckResult {
  /** Nothing is wrong; what is foreign, and damaged packs that are condemned already, do not count. */
  readonly ok: boolean;
  readonly packs: number;
  /** Bytes of all packs. */
  readonly bytes: number;
  /** Share of those bytes that was opened, from 0 to 1. */
  readonly coverage: number;
  readonly damagedPacks: readonly (DamagedPack & { readonly condemned: boolean })[];
  /** Packs that this machine's index knew, that are gone, and that points need. Of others nobody knows the names. */
  readonly missingPacks: readonly string[];
  /** Points, keys, checks and condemned lists that cannot be read. */
  readonly damagedObjects: readonly { readonly key: string; readonly reason: string }[];
  /** What is no object of a vault. */
  readonly foreign: readonly string[];
  /** By `finished`, the earliest first. */
  readonly points: readonly PointResult[];
}

/** What seems lost is looked for again as long as that shows anything new, but no more often. */
const mostRounds = 4;

/** Throws what the store throws, and the signal's reason; whatever is wrong with the vault is in the result. */
export function checkVault(
  vault: Vault,
  index: ChunkIndex,
  options: CheckOptions = {},
): Promise<CheckResult> {
  return againIfDamaged(index, () => checkOnce(vault, index, options));
}

async function checkOnce(vault: Vault, index: ChunkIndex, options: CheckOptions): Promise<CheckResult> {
  const { signal, progress } = options;
  const share = options.readData === true ? (options.sample ?? 1) : 0;
  // What a point needs was put before the point, so points come first, and what is there after them.
  const { points, damaged } = await listPoints(vault, { signal });
  const packs = new PackCheck(vault, index, {
    share,
    signal,
    progress: (done) => progress?.('packs', done),
  });
  const foreign: string[] = [];
  for await (const object of vault.store.list('', { signal })) {
    const kind = objectKind(object.key);
    if (kind === 'pack') await packs.add(object);
    else if (kind === 'foreign') foreign.push(object.key);
  }
  await packs.finish();
  for await (const name of vault.store.foreign({ signal })) foreign.push(name);

  const reader = new PartReader(vault, index, { signal });
  const walk = new PointWalk(index, packs, reader, { chunkSize: vault.chunkSize, signal });
  const results = await walkUntilSettled(walk, points, { vault, index, packs, options });

  const problems: { key: string; reason: string }[] = [];
  for (const { key, error } of damaged)
    if (await isThere(vault, key, signal)) problems.push({ key, reason: error.message });
  problems.push(...(await otherDamage(vault, signal)));
  const condemned = await condemnedPacks(vault, signal, problems);
  const damagedPacks: CheckResult['damagedPacks'][number][] = [];
  for (const each of packs.damaged) {
    const isCondemned = condemned.has(each.pack);
    // A prune may have deleted it meanwhile, and the list that condemned it.
    if (isCondemned || (await isThere(vault, packObject(each.pack), signal)))
      damagedPacks.push({ ...each, condemned: isCondemned });
  }
  const missingPacks = results.every(({ whole }) => whole)
    ? []
    : [...walk.missing].filter((pack) => index.pack(pack) === undefined);
  return {
    ok:
      problems.length === 0 &&
      damagedPacks.every((each) => each.condemned) &&
      results.every(({ whole }) => whole),
    packs: packs.count,
    bytes: packs.bytes,
    coverage: packs.bytes === 0 ? share : packs.bytesRead / packs.bytes,
    damagedPacks,
    missingPacks,
    damagedObjects: problems,
    foreign: foreign.sort(),
    points: results,
  };
}

/** What others do meanwhile is no damage: a prune may move what points need, and points may be forgotten. */
async function walkUntilSettled(
  walk: PointWalk,
  points: readonly Point[],
  on: {
    readonly vault: Vault;
    readonly index: ChunkIndex;
    readonly packs: PackCheck;
    readonly options: CheckOptions;
  },
): Promise<PointResult[]> {
  const { vault, index, packs, options } = on;
  const { signal } = options;
  let results = await walkPoints(walk, points, options);
  let isSettled = false;
  for (let round = 0; results.some(({ whole }) => !whole); round++) {
    // After the look at what it needs: a point that is gone by now may have lost it only then.
    const left = new Set(await listPointKeys(vault, 'points/', /^points\//, { signal }));
    const isLeft = (id: string): boolean => left.has(`points/${id}`);
    results = results.filter(({ point }) => isLeft(point));
    if (isSettled || round === mostRounds || results.every(({ whole }) => whole)) break;
    const { added, dropped } = await refreshIndex(vault, index, { signal });
    packs.refreshed();
    const there = points.filter(({ id }) => isLeft(id));
    results = await walkPoints(walk, there, options);
    isSettled = added + dropped === 0;
  }
  return results;
}

async function isThere(vault: Vault, key: string, signal: AbortSignal | undefined): Promise<boolean> {
  return (await vault.store.head(key, { signal })) !== undefined;
}

async function walkPoints(
  walk: PointWalk,
  points: readonly Point[],
  { progress }: CheckOptions,
): Promise<PointResult[]> {
  const results: PointResult[] = [];
  for (const { id, finished, machine, devices } of points) {
    const checks: DeviceCheck[] = [];
    for (const device of devices) checks.push(await walk.device(device));
    const whole = checks.every((each) => each.whole);
    results.push({ point: id, finished, machine: machine.name, whole, devices: checks });
    progress?.('points', results.length, points.length);
  }
  return results;
}

async function otherDamage(
  vault: Vault,
  signal: AbortSignal | undefined,
): Promise<{ key: string; reason: string }[]> {
  const keys = await listKeys(vault, { signal });
  const checks = await listChecks(vault, undefined, { signal });
  return [
    ...keys.damaged.map(({ id, error }) => ({ key: `keys/${id}.json`, reason: error.message })),
    ...checks.damaged.map(({ key, error }) => ({ key, reason: error.message })),
  ];
}

async function condemnedPacks(
  vault: Vault,
  signal: AbortSignal | undefined,
  problems: { key: string; reason: string }[],
): Promise<Set<string>> {
  const onDamage = (key: string, error: AgentError): void => {
    problems.push({ key, reason: error.message });
  };
  const lists = await readCondemnedLists(vault, { signal, onDamage });
  return new Set(lists.flatMap(({ packs }) => packs));
}
