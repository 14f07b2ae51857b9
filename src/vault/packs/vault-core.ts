/**
 * The part of an open vault that packs, index and reader use. `Vault` implements it, and tests can create it without
 * one.
 */
import type { Secrets } from '../secrets.ts';
import type { ObjectStore } from '../store/object-store.ts';

export interface VaultCore {
  /** For messages. */
  readonly name: string;
  /** 32 hexadecimal digits. */
  readonly id: string;
  readonly store: ObjectStore;
  readonly secrets: Secrets;
  /** In bytes. */
  readonly chunkSize: number;
  /** In bytes; a pack is closed when it reaches this size. */
  readonly packSize: number;
}
