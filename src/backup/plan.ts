/**
 * What kind of backup a device gets: what was asked for, where what is known of the chain allows it, and
 * otherwise the next safer kind, with the reason. Pure, so that every doubt has its test.
 */
import { type ChainRecord, type ChainSubject, isInStep } from '../tracking/chain.ts';
import type { TrackedEpoch } from '../tracking/tracker.ts';
import type { BackupKind } from './status.ts';

export interface Plan {
  readonly kind: BackupKind;
  /** Why it is not what was asked for; null where it is. */
  readonly reason: string | null;
  /**
   * The fingerprints may be older than what the target holds, so the target is read and compared with them before the
   * device is.
   */
  readonly readTarget?: true;
}

export interface PlanFacts {
  readonly wanted: BackupKind;
  readonly subject: ChainSubject;
  /** Of the chain as it was found; undefined where there is none. */
  readonly record: ChainRecord | undefined;
  /** Why there is no record. */
  readonly unknown: string;
  /** Bytes of the target now. */
  readonly targetSize: number;
  /** Where the target no longer holds what the chain says, or undefined. Not looked at for a full. */
  readonly drift: string | undefined;
  /** The tracker's epoch and why an earlier one did not go on; undefined where nothing tracks the device. */
  readonly tracked: (TrackedEpoch & { readonly doubt: string | undefined }) | undefined;
  /** Why there is no tracker. */
  readonly untracked: string;
}

export function decide(facts: PlanFacts): Plan {
  if (facts.wanted === 'full') return { kind: 'full', reason: null };
  const lost = whyFull(facts);
  if (lost !== undefined) return { kind: 'full', reason: lost };
  if (facts.wanted === 'differential')
    return { kind: 'differential', reason: null, ...(isBehind(facts) ? { readTarget: true } : {}) };
  return { kind: 'incremental', reason: null, ...whyDifferential(facts) };
}

/** Why nothing is known of what the target holds. */
function whyFull({ record, unknown, subject, targetSize, drift }: PlanFacts): string | undefined {
  if (record === undefined) return unknown;
  if (record.state !== 'complete') return 'no backup of this device to this target has been completed yet';
  if (record.size !== subject.size) return `the device has ${subject.size} bytes now and had ${record.size}`;
  if (record.targetSize !== targetSize)
    return `the target has ${targetSize} bytes now and had ${record.targetSize}`;
  return drift;
}

/** The tracker's map has forgotten in this epoch what the chain was not given. */
export function isBehind({ record, tracked }: Pick<PlanFacts, 'record' | 'tracked'>): boolean {
  if (record === undefined || tracked === undefined || record.epoch?.id !== tracked.epoch.id) return false;
  return !isInStep(record, tracked.epoch, tracked.generation);
}

/** Why it is not known what was written since. */
function whyDifferential({ record, subject, tracked, untracked }: PlanFacts): Plan | undefined {
  const differential = (reason: string): Plan => ({ kind: 'differential', reason });
  if (tracked === undefined) return differential(untracked);
  if (record?.epoch === undefined || record.epoch === null)
    return differential('nothing tracked the device at the last backup');
  if (record.epoch.id !== tracked.epoch.id)
    return differential(tracked.doubt ?? 'tracking was started anew after the last backup');
  if (isBehind({ record, tracked }))
    return {
      ...differential(
        `the record of the last backup does not fit what was taken from the tracker since (generation ` +
          `${record.generations?.join(' or ') || 'none'}, the tracker has ${tracked.generation}): the state directory was ` +
          `put back from a copy, its files could not be read, or another daemon used the same pins`,
      ),
      readTarget: true,
    };
  if (record.partitionStart !== subject.partitionStart)
    return differential(
      `the partition begins at ${subject.partitionStart} now and began at ${record.partitionStart}`,
    );
  return undefined;
}
