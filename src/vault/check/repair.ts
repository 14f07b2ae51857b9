/**
 * Repairs a vault: stores the readable data of damaged packs in new packs and condemns the damaged ones. Later
 * backups then store lost chunks again if they read them (docs/formats/vault.md, "Check and repair"). Apart from
 * that, only unreadable condemned lists are removed. If interrupted, run it again.
 */
import { AgentError } from '../../base/errors.ts';
import { newId } from '../ids.ts';
import type { ChunkIndex } from '../index/chunk-index.ts';
import { rebuildIndex } from '../index/rebuild.ts';
import { refreshIndex } from '../index/refresh.ts';
import { type PackKind, packObject } from '../packs/format.ts';
import { PackWriter } from '../packs/pack-writer.ts';
import { type PrunerLock, withPrunerLock } from '../prune/lock.ts';
import { type OwnerState, listWriters } from '../prune/participants.ts';
import type { Vault } from '../vault.ts';
import { putCondemned, putWaits, readCondemned } from '../writing/condemned.ts';
import type { Owner } from '../writing/owner.ts';
import { type CheckOptions, type CheckResult, checkVault } from './check-vault.ts';
import { salvageParts } from './salvage.ts';

export interface RepairOptions extends Omit<CheckOptions, 'readData' | 'sample'> {
  /** zstd level of the new packs. */
  readonly level?: number | undefined;
  /** For tests. */
  readonly owner?: Owner | undefined;
  readonly ownerState?: OwnerState | undefined;
}

export interface RepairResult {
  readonly before: CheckResult;
  readonly after: CheckResult;
  /** Packs that were condemned. */
  readonly condemned: readonly string[];
  /** Parts that were stored again. Other parts of the damaged packs are also in other packs. */
  readonly salvaged: { readonly parts: number; readonly bytes: number };
}

/**
 * Reads all data. Throws VAULT_LOCKED, VAULT_DENIED (at the start, if these credentials may not delete) and errors of
 * the store.
 */
export async function repairVault(
  vault: Vault,
  index: ChunkIndex,
  options: RepairOptions = {},
): Promise<RepairResult> {
  const { owner, ownerState, signal } = options;
  return withPrunerLock(vault, { what: 'repair', owner, ownerState, signal }, (lock) =>
    repair(vault, index, lock, options),
  );
}

async function repair(
  vault: Vault,
  index: ChunkIndex,
  lock: PrunerLock,
  options: RepairOptions,
): Promise<RepairResult> {
  const { signal, progress, level } = options;
  const before = await checkVault(vault, index, { signal, progress, readData: true });
  for (const { key } of before.damagedObjects)
    if (key.startsWith('condemned/')) {
      await lock.ensureHeld({ signal });
      await vault.store.delete(key, { signal });
    }
  // Missing packs must not prevent that their parts are stored again.
  await refreshIndex(vault, index, { signal });
  const damaged = before.damagedPacks.filter((each) => !each.condemned).map(({ pack }) => pack);
  const salvaged = await salvage(vault, index, damaged, { writer: lock.id, level, signal });
  if (damaged.length > 0) {
    await lock.ensureHeld({ signal });
    await condemn(vault, damaged, signal);
  }
  // The index entries of damaged packs are useless. Rebuilding costs no more than the check did.
  await rebuildIndex(vault, index, index.clock.now(), { signal });
  const after = await checkVault(vault, index, { signal, progress, readData: true });
  return { before, after, condemned: damaged, salvaged };
}

async function salvage(
  vault: Vault,
  index: ChunkIndex,
  packs: readonly string[],
  { writer, level, signal }: { readonly writer: string } & Pick<RepairOptions, 'level' | 'signal'>,
): Promise<{ parts: number; bytes: number }> {
  const condemned = new Set([...(await readCondemned(vault, { signal })), ...packs]);
  const writers = new Map<PackKind, PackWriter>();
  for (const pack of packs) {
    const bytes = await readOrUndefined(vault, pack, signal);
    if (bytes === undefined) continue;
    for await (const { kind, name, plain } of salvageParts(vault, pack, bytes, signal)) {
      let to = writers.get(kind);
      if (to === undefined) {
        to = new PackWriter(vault, index, { kind, writer, condemned, level, signal });
        writers.set(kind, to);
      }
      await to.add(name, plain);
    }
  }
  let [parts, bytes] = [0, 0];
  for (const each of writers.values()) {
    await each.seal();
    parts += each.counts.chunks;
    bytes += each.counts.packBytes;
  }
  return { parts, bytes };
}

async function readOrUndefined(
  vault: Vault,
  pack: string,
  signal: AbortSignal | undefined,
): Promise<Buffer | undefined> {
  try {
    return await vault.store.get(packObject(pack), { signal });
  } catch (error) {
    if (error instanceof AgentError && error.code === 'VAULT_OBJECT_MISSING') return undefined;
    throw error;
  }
}

async function condemn(
  vault: Vault,
  packs: readonly string[],
  signal: AbortSignal | undefined,
): Promise<void> {
  const id = newId();
  await putCondemned(vault, id, { reason: 'repair', packs }, { signal });
  const writers = await listWriters(vault, { signal });
  await putWaits(
    vault,
    id,
    writers.map((writer) => writer.id),
    { signal },
  );
}
