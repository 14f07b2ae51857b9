/**
 * The pruner's lock: only one process prunes or repairs at a time (docs/formats/vault.md, "Pruning"). It saves work
 * and avoids confusion; safety does not depend on it.
 */
import { AgentError } from '../../base/errors.ts';
import { newId } from '../ids.ts';
import { withDeletePermission, isDenied } from '../delete-permission.ts';
import { sealDocument } from '../sealed.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';
import { type Owner, thisProcess } from '../writing/owner.ts';
import { beatContent } from '../writing/writer-session.ts';
import {
  type OwnerState,
  describeParticipant,
  isStale,
  isFromFuture,
  listLocks,
  listOrphanedBeats,
  redate,
} from './participants.ts';

export interface LockOptions extends StoreOptions {
  readonly what: 'prune' | 'repair';
  /** For tests. */
  readonly owner?: Owner | undefined;
  readonly ownerState?: OwnerState | undefined;
}

const beatMs = 10 * 60 * 1000;

/**
 * Runs `work` under the lock. Throws errors of `work`, VAULT_LOCKED if another process holds the lock, and
 * VAULT_DENIED if these credentials may not delete. After VAULT_DENIED nothing remains that counts as a lock.
 */
export async function withPrunerLock<T>(
  vault: Vault,
  options: LockOptions,
  work: (lock: PrunerLock) => Promise<T>,
): Promise<T> {
  const lock = await PrunerLock.take(vault, options);
  let result: T;
  try {
    result = await work(lock);
  } catch (error) {
    const stays = await lock.release().then(() => undefined, deniedOnly);
    if (stays === undefined || !(error instanceof AgentError)) throw error;
    const { code, message } = error;
    throw new AgentError(code, `${message}; then: ${stays.message}`, {
      ...(stays.hint === undefined ? {} : { hint: stays.hint }),
      cause: error,
    });
  }
  const stays = await lock.release().then(() => undefined, deniedOnly);
  if (stays !== undefined) throw stays;
  return result;
}

/** If the store is unreachable, the lock stays and becomes stale. */
function deniedOnly(error: unknown): AgentError | undefined {
  return isDenied(error) ? error : undefined;
}

export class PrunerLock {
  readonly id: string;
  readonly #vault: Vault;
  readonly #timer: NodeJS.Timeout;

  private constructor(vault: Vault, id: string) {
    this.#vault = vault;
    this.id = id;
    this.#timer = setInterval(() => {
      void vault.store.put(`locks/${id}.beat`, beatContent).catch(() => undefined);
    }, beatMs);
    this.#timer.unref();
  }

  /**
   * Throws VAULT_LOCKED if another process holds the lock, VAULT_DENIED if these credentials may not delete. Stale
   * locks are removed.
   */
  static async take(vault: Vault, { what, owner, ownerState, signal }: LockOptions): Promise<PrunerLock> {
    await proveDeleting(vault, what, { signal });
    const id = newId();
    const key = `locks/${id}`;
    const document = {
      format: 1,
      what,
      started: new Date().toISOString(),
      owner: owner ?? (await thisProcess()),
    };
    await vault.store.put(key, sealDocument(vault.secrets, key, document), { signal, isNew: true });
    const lock = new PrunerLock(vault, id);
    try {
      const now = await lock.storeNow({ signal });
      for (const other of await listLocks(vault, { signal })) {
        if (other.id === id) continue;
        if (!(await isStale(other, now, ownerState))) {
          if (isFromFuture(other, now)) await redate(vault, 'locks', other.id, { signal });
          throw new AgentError(
            'VAULT_LOCKED',
            `${vault.name} is locked: ${describeParticipant(other)} (lock ${other.id})`,
            { hint: `wait until it ends; if it is certainly gone, run dattocli vault unlock ${other.id}` },
          );
        }
        await removeLock(vault, other.id, { signal });
      }
      for (const orphan of await listOrphanedBeats(vault, { signal }))
        await vault.store.delete(orphan, { signal });
      return lock;
    } catch (error) {
      await lock.release().catch(() => undefined);
      throw error;
    }
  }

  /** Returns the store's time in milliseconds since 1970. This is also a heartbeat. */
  async storeNow(options: StoreOptions = {}): Promise<number> {
    const key = `locks/${this.id}.beat`;
    await this.#vault.store.put(key, beatContent, options);
    // If another process removed it at once, 0 makes no participant stale.
    return (await this.#vault.store.head(key, options))?.modified ?? 0;
  }

  /** Call it before each step that deletes. Throws VAULT_LOCKED if the lock was removed. */
  async ensureHeld(options: StoreOptions = {}): Promise<void> {
    if ((await this.#vault.store.head(`locks/${this.id}`, options)) === undefined)
      throw new AgentError('VAULT_LOCKED', `${this.#vault.name}: the lock ${this.id} was removed`, {
        hint:
          'another process declared this run stale, or `vault unlock` was run; the next prune finishes ' +
          'the remaining work',
      });
  }

  /** Throws VAULT_DENIED if the permission to delete was revoked in the meantime, and errors of the store. */
  async release(): Promise<void> {
    clearInterval(this.#timer);
    try {
      await removeLock(this.#vault, this.id);
    } catch (error) {
      if (!isDenied(error)) throw error;
      throw new AgentError('VAULT_DENIED', `the lock ${this.id} was not removed: ${error.message}`, {
        hint: `run dattocli vault unlock ${this.id} with credentials that may delete`,
        cause: error,
      });
    }
  }
}

/**
 * Deletes an object of its own before it takes the lock, because credentials that may not delete could never remove
 * the lock. If the delete is refused, a heartbeat without a lock remains. It has no effect, and the next pruner
 * removes it.
 */
async function proveDeleting(vault: Vault, what: LockOptions['what'], options: StoreOptions): Promise<void> {
  const probe = `locks/${newId()}.beat`;
  await vault.store.put(probe, beatContent, options);
  await withDeletePermission(`to ${what}`, () => vault.store.delete(probe, options));
}

export async function removeLock(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  await vault.store.delete(`locks/${id}`, options);
  await vault.store.delete(`locks/${id}.beat`, options);
}
