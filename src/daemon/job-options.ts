/** The options of a job: a request and the configuration together give the options of the engine. */
import type { JobOptionsDocument } from '../api/job-options.ts';
import { defaultJobOptions, type JobOptions } from '../backup/job.ts';

/**
 * Merges the documents into the options of a job. If several documents have a key, the first one wins. A key that is
 * in none of them gets its value from `defaultJobOptions`.
 */
export function toJobOptions(...documents: readonly JobOptionsDocument[]): JobOptions {
  const given: JobOptionsDocument = documents.reduceRight(
    (wanted, document) => ({ ...wanted, ...document }),
    {},
  );
  const defaults = defaultJobOptions;
  return {
    maxFreezeMs: given.max_freeze_ms ?? defaults.maxFreezeMs,
    rate: given.rate ?? defaults.rate,
    impact: given.impact ?? defaults.impact,
    onReadError: given.on_read_error ?? defaults.onReadError,
    connections: given.connections ?? defaults.connections,
    reconnectMs: given.reconnect_ms ?? defaults.reconnectMs,
    verify: given.verify ?? defaults.verify,
    tracker: given.tracker ?? defaults.tracker,
    snapshot: given.snapshot ?? defaults.snapshot,
    snapshotSize: given.snapshot_size ?? defaults.snapshotSize,
    fingerprints: given.fingerprints ?? defaults.fingerprints,
    fallback: given.fallback ?? defaults.fallback,
    trim: given.trim ?? defaults.trim,
    maxPasses: given.max_passes ?? defaults.maxPasses,
    preFreezeHook: given.pre_freeze_hook ?? defaults.preFreezeHook,
    postThawHook: given.post_thaw_hook ?? defaults.postThawHook,
    frozenHook: given.frozen_hook ?? defaults.frozenHook,
  };
}
