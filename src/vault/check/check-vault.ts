/**
 * Checks a vault (docs/formats/vault.md, "Check and repair"): finds damaged and missing packs, the points and ranges
 * that they affect, and the points that are whole. It changes nothing in the vault and may run beside writers and
 * prunes.
 */
import type { AgentError } from '../../base/errors.ts';
import { listKeys } from '../keys.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { againIfDamaged } from '../index/damaged.ts';
import { provenWalk } from '../index/proven.ts';
import { packObject } from '../packs/format.ts';
import { PartReader } from '../packs/part-reader.ts';
import { listChecks } from '../points/checks.ts';
import type { Point } from '../points/point.ts';
import { hasPoint, listPoints } from '../points/points.ts';
import type { Vault } from '../vault.ts';
import { readCondemnedLists } from '../writing/condemned.ts';
import { objectKind } from './objects.ts';
import { type DamagedPack, PackCheck } from './packs.ts';
import { type DeviceCheck, PointWalk } from './point-walk.ts';

export type { DamagedPack } from './packs.ts';
export type { DeviceCheck } from './point-walk.ts';

export type CheckStep = 'packs' | 'points';

export interface CheckOptions {
  /** Also opens the parts of the packs, not only their directories. */
  readonly readData?: boolean | undefined;
  /** With `readData`: share of the packs that are read, chosen at random. Default: 1. */
  readonly sample?: number | undefined;
  readonly signal?: AbortSignal | undefined;
  /** Number of packs or points checked. */
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
  /** True if nothing is wrong. Foreign objects and damaged packs that are already condemned do not count. */
  readonly ok: boolean;
  readonly packs: number;
  /** Bytes of all packs. */
  readonly bytes: number;
  /** Share of those bytes that was opened, from 0 to 1. */
  readonly coverage: number;
  readonly damagedPacks: readonly (DamagedPack & { readonly condemned: boolean })[];
  /**
   * Missing packs that this machine's index knew and that points need. The names of other missing packs are not
   * known.
   */
  readonly missingPacks: readonly string[];
  /** Points, keys, checks and condemned lists that cannot be read. */
  readonly damagedObjects: readonly { readonly key: string; readonly reason: string }[];
  /** Objects that do not belong to a vault. */
  readonly foreign: readonly string[];
  /** In order of `finished`, earliest first. */
  readonly points: readonly PointResult[];
}

/** Throws errors of the store and the signal's reason. Problems of the vault are in the result. */
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
  // Data is put before the point that references it. So the points are listed first, and the packs after them.
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
  const results = await walkUntilProven(walk, points, { vault, index, packs, options });

  const problems: { key: string; reason: string }[] = [];
  for (const { key, error } of damaged)
    if (await isThere(vault, key, signal)) problems.push({ key, reason: error.message });
  problems.push(...(await otherDamage(vault, signal)));
  const condemned = await condemnedPacks(vault, signal, problems);
  const damagedPacks: CheckResult['damagedPacks'][number][] = [];
  for (const each of packs.damaged) {
    const isCondemned = condemned.has(each.pack);
    // A prune may have deleted the pack and the list that condemned it in the meantime.
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

/**
 * Ignores concurrent changes, which are not damage: a prune may move live data, and points may be forgotten. Damage of
 * the index is not damage of the vault either.
 */
async function walkUntilProven(
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
  let there = points;
  let isFirst = true;
  return provenWalk(vault, index, {
    walk: async () => {
      if (!isFirst) packs.refreshed();
      isFirst = false;
      const results = await walkPoints(walk, there, options);
      // Look after the walk: a point that is gone now may have lost its data only then.
      const gone = new Set<string>();
      for (const [i, { point, whole }] of results.entries())
        if (!whole && !(await hasPoint(vault, there[i]!, { signal }))) gone.add(point);
      there = there.filter(({ id }) => !gone.has(id));
      return results.filter(({ point }) => !gone.has(point));
    },
    isWhole: (results) => results.every(({ whole }) => whole),
    signal,
  });
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
