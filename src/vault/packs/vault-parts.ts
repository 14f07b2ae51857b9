/** What packs, index and reader need of a vault that is open: `Vault` has it all, and tests make it of little. */
import type { Secrets } from '../secrets.ts';
import type { ObjectStore } from '../store/object-store.ts';

export interface VaultParts {
  /** For messages. */
  readonly name: string;
  /** 32 hexadecimal digits. */
  readonly id: string;
  readonly store: ObjectStore;
  readonly secrets: Secrets;
  /** Bytes. */
  readonly chunkSize: number;
  /** Bytes: where a pack reaches it, it is closed. */
  readonly packSize: number;
}
