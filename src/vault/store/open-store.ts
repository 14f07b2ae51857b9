/** Opens the store of a location, with retries and rate limits. */
import { type Clock, systemClock } from '../../base/clock.ts';
import { openDirectoryStore } from './directory.ts';
import type { StoreLocation } from './location.ts';
import type { ObjectStore } from './object-store.ts';
import { rateLimitedStore } from './rate.ts';
import { type RetryHooks, type RetrySettings, retryingStore } from './retry.ts';
import type { S3Settings } from './s3-client.ts';

/** Plain data, so that it can be passed to a thread. */
export interface StoreSettings {
  /** Creates the directory. A bucket must exist. */
  readonly create?: boolean | undefined;
  readonly s3?: S3Settings | undefined;
  /** Bytes per second for all threads of a job together. Each thread gets a share. */
  readonly uploadRate?: number | undefined;
  readonly downloadRate?: number | undefined;
  readonly retry?: RetrySettings | undefined;
}

export interface StoreHooks extends RetryHooks {
  readonly clock?: Clock | undefined;
}

/** Throws VAULT_NOT_FOUND, VAULT_DENIED, BAD_TARGET, BAD_USAGE, FILE_ERROR. */
export async function openStore(
  location: StoreLocation,
  settings: StoreSettings = {},
  hooks: StoreHooks = {},
): Promise<ObjectStore> {
  const clock = hooks.clock ?? systemClock;
  const bare = await openBare(location, settings, clock);
  // The limit is inside the retries, so repeated requests count too.
  const limited =
    settings.uploadRate === undefined && settings.downloadRate === undefined
      ? bare
      : rateLimitedStore(bare, { upload: settings.uploadRate, download: settings.downloadRate }, clock);
  return retryingStore(limited, settings.retry, hooks);
}

async function openBare(
  location: StoreLocation,
  settings: StoreSettings,
  clock: Clock,
): Promise<ObjectStore> {
  if (location.kind === 'directory') return openDirectoryStore(location.path, { create: settings.create });
  // Loading the SDK takes time and memory, so it is loaded only for a bucket.
  const { openS3Store } = await import('./s3.ts');
  return openS3Store(location, settings.s3, clock);
}
