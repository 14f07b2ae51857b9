/**
 * The pruner's lock: one that prunes or repairs at a time (docs/formats/vault.md, "Pruning"). It spares work and
 * keeps people from confusion; what is safe does not rest on it.
 */
import { AgentError } from '../../base/errors.ts';
import { newId } from '../ids.ts';
import { asDeleter, isDenied } from '../may-delete.ts';
import { sealDocument } from '../sealed.ts';
import type { StoreOptions } from '../store/object-store.ts';
import type { Vault } from '../vault.ts';
import { type Owner, thisProcess } from '../writing/owner.ts';
import { beatContent } from '../writing/writer-session.ts';
import {
  type OwnerState,
  describeParticipant,
  isDead,
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
 * Does `work` under the lock. Throws what it throws, VAULT_LOCKED where another one is at work, and VAULT_DENIED where
 * these credentials may not delete: then nothing is left that counts as a lock.
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
    throw new AgentError(code, `${message}; and then: ${stays.message}`, {
      ...(stays.hint === undefined ? {} : { hint: stays.hint }),
      cause: error,
    });
  }
  const stays = await lock.release().then(() => undefined, deniedOnly);
  if (stays !== undefined) throw stays;
  return result;
}

/** Where the store is out of reach, the lock stays and is found stale. */
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
   * Throws VAULT_LOCKED where another one is at work, VAULT_DENIED where these credentials may not delete. Locks of
   * the dead are removed.
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
        if (!(await isDead(other, now, ownerState))) {
          if (isFromFuture(other, now)) await redate(vault, 'locks', other.id, { signal });
          throw new AgentError(
            'VAULT_LOCKED',
            `${vault.name} is locked: ${describeParticipant(other)} (lock ${other.id})`,
            { hint: `wait for it; where it is certainly gone, dattocli vault unlock ${other.id}` },
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

  /** What the store's clock says, milliseconds since 1970; a sign of life at the same time. */
  async storeNow(options: StoreOptions = {}): Promise<number> {
    const key = `locks/${this.id}.beat`;
    await this.#vault.store.put(key, beatContent, options);
    // Where somebody removed it at once, nobody counts as dead.
    return (await this.#vault.store.head(key, options))?.modified ?? 0;
  }

  /** To be asked before each step that deletes. Throws VAULT_LOCKED where the lock was taken away. */
  async ensureHeld(options: StoreOptions = {}): Promise<void> {
    if ((await this.#vault.store.head(`locks/${this.id}`, options)) === undefined)
      throw new AgentError('VAULT_LOCKED', `${this.#vault.name}: the lock ${this.id} was taken away`, {
        hint: 'somebody took this run for dead, or unlocked the vault; what it had begun the next prune ends',
      });
  }

  /** Throws VAULT_DENIED where the right to delete was taken away meanwhile, and what the store throws. */
  async release(): Promise<void> {
    clearInterval(this.#timer);
    try {
      await removeLock(this.#vault, this.id);
    } catch (error) {
      if (!isDenied(error)) throw error;
      throw new AgentError('VAULT_DENIED', `the lock ${this.id} stays: ${error.message}`, {
        hint: `with credentials that may delete: dattocli vault unlock ${this.id}`,
        cause: error,
      });
    }
  }
}

/**
 * Deletes something of its own before it takes the lock: who may put but not delete could never take the lock away
 * again. What stays then is a heartbeat without a lock, which counts for nothing, and which the next pruner removes.
 */
async function proveDeleting(vault: Vault, what: LockOptions['what'], options: StoreOptions): Promise<void> {
  const probe = `locks/${newId()}.beat`;
  await vault.store.put(probe, beatContent, options);
  await asDeleter(`to ${what}`, () => vault.store.delete(probe, options));
}

export async function removeLock(vault: Vault, id: string, options: StoreOptions = {}): Promise<void> {
  await vault.store.delete(`locks/${id}`, options);
  await vault.store.delete(`locks/${id}.beat`, options);
}
