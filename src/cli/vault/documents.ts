/**
 * The `--json` documents of vaults and points (docs/vault.md, "For scripts"). Fields may be added, but are never
 * changed.
 */
import type { KeySlot } from '../../vault/key-slots.ts';
import type { PointDevice } from '../../vault/points/point.ts';
import type { Participant } from '../../vault/prune/participants.ts';

export interface KeyDocument {
  id: string;
  kind: 'passphrase' | 'file' | 'recovery';
  label: string;
  /** ISO 8601. */
  created: string;
}

export function keyDocument({ id, kind, label, created }: KeySlot): KeyDocument {
  return { id, kind, label, created };
}

/** Sizes in bytes. */
export interface PointDocument {
  id: string;
  finished: string;
  started: string;
  job: string;
  kind: string;
  agent: string;
  machine: { id: string; name: string; boot: string };
  protected: boolean;
  /** When the point arrived, by the store's clock, ISO 8601; null if the store does not report it. */
  stored: string | null;
  /** Why `finished` is not trusted; null if it is. */
  time_doubt: string | null;
  /** The last check of each level, latest first. */
  checks: CheckDocument[];
  /** The last check that found damage, if no later check has cleared it. */
  damage: CheckDocument | null;
  warnings: { code: string; message: string; device?: string }[];
  devices: PointDeviceDocument[];
}

export type PointDeviceDocument = Omit<PointDevice, 'root' | 'levels' | 'identity'> & {
  /** Distinguishes the device from its clones; null if nothing does. */
  identity: string | null;
};

export interface CheckDocument {
  level: string;
  at: string;
  /** From 0 to 1. */
  coverage: number;
  outcome: string;
  problems: readonly string[];
}

export interface ParticipantDocument {
  id: string;
  /** `backup`, `prune` or `repair`; empty if its document cannot be read. */
  what: string;
  host: string | null;
  pid: number | null;
  /** By the participant's own clock, ISO 8601; empty if its document cannot be read. */
  started: string;
  /** By the store's clock, ISO 8601. */
  last_sign: string;
}

export function participantDocument({
  id,
  what,
  owner,
  started,
  lastSign,
}: Participant): ParticipantDocument {
  return {
    ...{ id, what, started },
    host: owner?.host ?? null,
    pid: owner?.pid ?? null,
    last_sign: new Date(lastSign).toISOString(),
  };
}

export interface InfoDocument {
  location: string;
  id: string;
  created: string;
  /** In bytes. */
  chunk_size: number;
  pack_size: number;
  keys: KeyDocument[];
  /** Key slots that cannot be read. */
  damaged_keys: { id: string; message: string }[];
  /** Null if this machine has no key. */
  contents: {
    points: number;
    /** Number of objects under `points/` that cannot be read. */
    damaged_points: number;
    machines: string[];
    /** Times of the first and the last point, ISO 8601; null if there are no points. */
    first: string | null;
    last: string | null;
  } | null;
}

export interface InitDocument {
  /** A location such as `vault:/path` or `vault+s3://…`. */
  location: string;
  id: string;
  created: string;
  chunk_size: number;
  pack_size: number;
  /** Null if no key file was created or used. */
  key_file: string | null;
  /** Shown only once. */
  recovery_code: string | null;
  keys: KeyDocument[];
}

export interface KeyListDocument {
  keys: KeyDocument[];
  damaged: { id: string; message: string }[];
}

export interface KeyChangeDocument {
  added: KeyDocument;
  /** ID of the key that was replaced; null if a key was added or if the old one could not be removed. */
  removed: string | null;
  /** Why the replaced key may still open the vault; null if it does not. */
  warning: string | null;
  key_file: string | null;
  recovery_code: string | null;
}

export interface AtWorkDocument {
  writers: ParticipantDocument[];
  locks: ParticipantDocument[];
}

export interface UnlockedDocument {
  unlocked: ParticipantDocument & { role: 'writer' | 'lock' };
}

/** Sizes in bytes. */
export interface RestoreDocument {
  point: string;
  device: string;
  to: string;
  size: number;
  written: number;
  equal: number;
  zeroed: number;
  left: number;
  verified: number;
  /** Ranges that the vault has lost. They are zeros on the destination. */
  lost: { offset: number; length: number; reason: string }[];
  warnings: string[];
  table_moved: boolean;
  partitions_reread: boolean | null;
  seconds: number;
}

export interface RestoreFilesDocument {
  point: string;
  device: string;
  to: string;
  /** Relative to `to`. */
  paths: readonly string[];
  seconds: number;
}

export interface PointsDocument {
  vault: { id: string; name: string };
  /** Earliest first. */
  points: PointDocument[];
  /** Objects under `points/` that cannot be read. */
  damaged: { key: string; code: string; message: string }[];
}

/** One point with the disk layout of its machine. */
export interface OnePointDocument extends PointDocument {
  layout: Readonly<Record<string, unknown>>;
}

export interface ForgetDocument {
  dry_run: boolean;
  /** IDs; with --dry-run, the points that would be forgotten. */
  forgotten: string[];
  protected: string[];
  unprotected: string[];
  /** The result of the rules, by machine and set of devices; empty if points were given. */
  groups: {
    machine: string;
    devices: readonly string[];
    keep: { point: string; finished: string; reasons: readonly string[] }[];
    forget: { point: string; finished: string }[];
  }[];
  /** Points that cannot be read. Rules do not touch them. */
  damaged: { key: string; message: string }[];
}
