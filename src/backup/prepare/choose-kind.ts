/**
 * Chooses the kind of backup that a device gets: the requested one if the chain allows it, otherwise the next safer
 * kind, with the reason. Pure, so every reason has its test.
 */
import { type ChainRecord, type ChainSubject, isInStep } from '../../tracking/chain.ts';
import type { TrackedEpoch } from '../../tracking/tracker.ts';
import type { BackupPlan } from '../plan.ts';
import type { BackupKind } from '../../api/job-status.ts';

export interface PlanFacts {
  readonly wanted: BackupKind;
  readonly subject: ChainSubject;
  /** The record of the chain that was found. Undefined if there is none. */
  readonly record: ChainRecord | undefined;
  /** The reason why there is no record. */
  readonly unknown: string;
  /** Bytes of the target now. */
  readonly targetSize: number;
  /** How the target differs from its chain. Undefined if it does not. Not checked for a full backup. */
  readonly drift: string | undefined;
  /** The tracker's epoch, and the reason why an earlier one ended. Undefined if nothing tracks the device. */
  readonly tracked: (TrackedEpoch & { readonly doubt: string | undefined }) | undefined;
  /** The reason why there is no tracker. */
  readonly untracked: string;
}

export function chooseKind(facts: PlanFacts): BackupPlan {
  if (facts.wanted === 'full') return { kind: 'full', reason: null };
  const lost = whyFull(facts);
  if (lost !== undefined) return { kind: 'full', reason: lost };
  if (facts.wanted === 'differential')
    return { kind: 'differential', reason: null, ...(isBehind(facts) ? { readTarget: true } : {}) };
  return { kind: 'incremental', reason: null, ...whyDifferential(facts) };
}

/** Returns why the content of the target is not known. Undefined if it is known. */
function whyFull({ record, unknown, subject, targetSize, drift }: PlanFacts): string | undefined {
  if (record === undefined) return unknown;
  if (record.state !== 'complete') return 'no backup of this device to this target has been completed yet';
  if (record.size !== subject.size) return `the device has ${subject.size} bytes now and had ${record.size}`;
  if (record.targetSize !== targetSize)
    return `the target has ${targetSize} bytes now and had ${record.targetSize}`;
  return drift;
}

/** True if, in this epoch, the tracker's map has forgotten blocks that the chain did not get. */
export function isBehind({ record, tracked }: Pick<PlanFacts, 'record' | 'tracked'>): boolean {
  if (record === undefined || tracked === undefined || record.epoch?.id !== tracked.epoch.id) return false;
  return !isInStep(record, tracked.epoch, tracked.generation);
}

/** Returns the plan and the reason if the writes since the last backup are not known. */
function whyDifferential({ record, subject, tracked, untracked }: PlanFacts): BackupPlan | undefined {
  const differential = (reason: string): BackupPlan => ({ kind: 'differential', reason });
  if (tracked === undefined) return differential(untracked);
  if (record?.epoch === undefined || record.epoch === null)
    return differential('nothing tracked the device at the last backup');
  if (record.epoch.id !== tracked.epoch.id)
    return differential(tracked.doubt ?? 'tracking was started again after the last backup');
  if (isBehind({ record, tracked }))
    return {
      ...differential(
        `the record of the last backup does not match the blocks taken from the tracker since (generation ` +
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
