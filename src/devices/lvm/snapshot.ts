/**
 * A temporary LVM snapshot: recorded, taken, watched, and removed whatever happens (docs/tracking.md). lvcreate
 * suspends the volume for a moment. In that moment device-mapper itself freezes the filesystem on it.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { formatBytes } from '../../base/bytes.ts';
import { AgentError } from '../../base/errors.ts';
import type { Log } from '../../base/log.ts';
import { forgetHalfMade } from './half-made.ts';
import { readRecords, removeRecord, snapshotName, snapshotsDirectory, writeRecord } from './records.ts';
import { isSuspended, removeBegun, resumeVolumes } from './resume.ts';
import type { SnapshotRoom } from './room.ts';
import { type SnapshotUsage, thickUsage, thinUsage } from './snapshot-usage.ts';
import { dmStatus, dmUuidOf, listVolumes, lvm, lvmFailure } from './volumes.ts';

/** Tag of our snapshots, so that `lvs @dattod` lists them. */
const tag = 'dattod';

/** How often the usage is checked, milliseconds. */
const watchMs = 1000;

/** How often a removal is tried, and the pause in milliseconds: udev may have the device open for a moment. */
const removeTries = 10;
const removePauseMs = 500;

/**
 * A record this young (`bornMs`) without a volume may be of an lvcreate that still runs: wait `birthMs`. Milliseconds.
 */
const bornMs = 60_000;
const birthMs = 3_000;

export interface SnapshotPlace {
  readonly room: SnapshotRoom;
  /** Kernel name of the volume's device, `dm-0`. */
  readonly kernelName: string;
  readonly job: string;
  /** Distinguishes the snapshots of a job. */
  readonly number: number;
  readonly stateDirectory: string;
  readonly log: Log;
}

export class LvmSnapshot {
  readonly room: SnapshotRoom;
  readonly name: string;
  readonly #place: SnapshotPlace;
  readonly #directory: string;
  /** Undefined until lvcreate was started. From then on there may be a volume to remove. */
  #taking: Promise<void> | undefined;
  #recorded = false;
  #statusUuid = '';
  #usage: SnapshotUsage;
  #suspendedMs = 0;
  /** lvcreate failed, so it may have been interrupted and may have left volumes suspended. */
  #interrupted = false;
  /** Volumes that lvcreate left suspended were resumed. */
  #resumed = false;

  constructor(place: SnapshotPlace) {
    this.room = place.room;
    this.name = snapshotName(place.job, place.number);
    this.#place = place;
    this.#directory = snapshotsDirectory(place.stateDirectory);
    const { extents, volume, pool } = place.room;
    this.#usage = { used: 0, size: pool?.size ?? extents * volume.extentSize, over: undefined };
  }

  /** `vg/name`. */
  get volume(): string {
    return `${this.room.volume.group}/${this.name}`;
  }

  /** How long the volume was seen as suspended, milliseconds. */
  get suspendedMs(): number {
    return this.#suspendedMs;
  }

  /** The usage at the last check. */
  get usage(): SnapshotUsage {
    return this.#usage;
  }

  /** Returns why lvcreate would refuse, or undefined if it would succeed. Changes nothing. */
  async refusal(): Promise<string | undefined> {
    const result = await lvm([...this.#createArguments(), '--test'], { killAfterMs: 30_000 });
    return result.code === 0 ? undefined : lvmFailure('lvcreate --test', result).message;
  }

  /** Writes the record durably. Call this while nothing is frozen. */
  async record(): Promise<void> {
    const { group, groupUuid, name: origin } = this.room.volume;
    const { name } = this;
    const record = { version: 1 as const, name, origin, group, groupUuid, job: this.#place.job };
    await writeRecord(this.#directory, { ...record, at: Date.now() });
    this.#recorded = true;
  }

  /**
   * Takes the snapshot. Writes no files except those that device-mapper and lvm2 keep in /run and /dev. Throws
   * SNAPSHOT_FAILED.
   */
  take(): Promise<void> {
    if (!this.#recorded) throw new Error('a snapshot is recorded before it is taken');
    return (this.#taking ??= this.#take());
  }

  async #take(): Promise<void> {
    const done = new AbortController();
    const watching = this.#watchSuspension(done.signal);
    try {
      const result = await lvm(this.#createArguments());
      if (result.code === 0) return;
      this.#interrupted = true;
      // If recovery fails, the removal of the snapshot tries again and reports the error.
      await this.#recover().catch(() => undefined);
      throw lvmFailure('lvcreate', result);
    } finally {
      done.abort();
      await watching;
    }
  }

  async #recover(): Promise<void> {
    const { groupUuid, name } = this.room.volume;
    const resumed = await resumeVolumes(groupUuid, listVolumes);
    this.#resumed ||= resumed.length > 0;
    if (resumed.length > 0) await refresh(groupUuid, name);
  }

  #createArguments(): string[] {
    const { kind, extents, volume } = this.room;
    const common = ['--name', this.name, '--permission', 'r', '--addtag', tag];
    const own =
      kind === 'thick'
        ? ['--extents', String(extents)]
        : // So that no other program activates it, for example at the next boot.
          ['--setactivationskip', 'y', '--ignoreactivationskip', '--activate', 'y'];
    return ['lvcreate', '--yes', '--snapshot', ...common, ...own, `${volume.group}/${volume.name}`];
  }

  async #watchSuspension(done: AbortSignal): Promise<void> {
    let since: number | undefined;
    while (!done.aborted) {
      const now = performance.now();
      const suspended = isSuspended(this.#place.kernelName);
      if (suspended) since ??= now;
      else if (since !== undefined) {
        this.#suspendedMs += now - since;
        since = undefined;
      }
      await sleep(1);
    }
    if (since !== undefined) this.#suspendedMs += performance.now() - since;
  }

  /** Returns the path of the snapshot's device. Call this after it was taken. */
  async open(): Promise<string> {
    const { volume, kind, pool } = this.room;
    const found = (await listVolumes()).find(
      ({ name, groupUuid }) => name === this.name && groupUuid === volume.groupUuid,
    );
    if (found === undefined) throw new AgentError('SNAPSHOT_FAILED', `${this.volume} is gone`);
    this.#statusUuid = kind === 'thick' || pool === undefined ? dmUuidOf(found) : `${dmUuidOf(pool)}-tpool`;
    await this.check();
    return found.path;
  }

  /** Checks the usage. Throws SNAPSHOT_OVERFLOW if data read from the snapshot may be wrong, or soon will be. */
  async check(): Promise<void> {
    const status = await dmStatus(this.#statusUuid);
    const usage = this.room.kind === 'thick' ? thickUsage(status) : thinUsage(status);
    // An overflowed snapshot reports no numbers, so the last ones are kept.
    const { used, size } = usage.size > 0 ? usage : this.#usage;
    this.#usage = { used, size, over: usage.over };
    if (usage.over === undefined) return;
    const thick = this.room.kind === 'thick';
    throw new AgentError(
      'SNAPSHOT_OVERFLOW',
      `the snapshot ${this.volume} cannot be used any more: ${usage.over}; ${formatBytes(used)} of ${formatBytes(size)} ` +
        `were in use when it was last seen well`,
      {
        hint: thick
          ? 'give it more with --snapshot-size, or start the backup when less is written'
          : 'extend the thin pool, or start the backup when less is written',
      },
    );
  }

  /** Checks the usage repeatedly until the signal fires. If `check` throws, calls back once with the error. */
  watch(onFailure: (error: unknown) => void, signal: AbortSignal): void {
    const next = async (): Promise<void> => {
      while (!signal.aborted) {
        await this.check();
        await sleep(watchMs, undefined, { signal }).catch(() => undefined);
      }
    };
    next().catch((error: unknown) => {
      if (!signal.aborted) onFailure(error);
    });
  }

  /** Removes the snapshot, if it was recorded. Throws SNAPSHOT_FAILED; the next daemon then tries again. */
  async remove(): Promise<void> {
    if (!this.#recorded) return;
    await this.#taking?.catch(() => undefined);
    const { groupUuid, name: origin } = this.room.volume;
    if (this.#interrupted) await this.#recover();
    if (this.#taking !== undefined) await removeVolume(groupUuid, this.name);
    // Only now does no device lie on the devices that were made for the snapshot.
    if (this.#resumed) await refresh(groupUuid, origin);
    await removeRecord(this.#directory, this.name);
    this.#recorded = false;
  }
}

/**
 * Lets lvm2 set up the devices of the origin again as its metadata describe them. If that fails, unused devices stay,
 * and the next snapshot takes them over.
 */
async function refresh(groupUuid: string, origin: string): Promise<void> {
  const found = (await listVolumes()).find((each) => each.name === origin && each.groupUuid === groupUuid);
  if (found === undefined) return;
  await lvm(['lvchange', '--refresh', `${found.group}/${found.name}`]);
  await removeBegun(dmUuidOf(found));
}

/** Removes the volume of this name in the group with this UUID. Does nothing if there is none. */
async function removeVolume(groupUuid: string, name: string): Promise<void> {
  for (let tries = 1; ; tries++) {
    const found = (await listVolumes()).find((each) => each.name === name && each.groupUuid === groupUuid);
    if (found === undefined) return;
    const result = await lvm(['lvremove', '--yes', `${found.group}/${name}`]);
    if (result.code === 0) return;
    if (tries >= removeTries) throw lvmFailure('lvremove', result);
    if (await forgetHalfMade(found)) continue;
    await sleep(removePauseMs);
  }
}

/** Removes the snapshots that an earlier daemon left. Call it when a daemon starts. Never throws. */
export async function removeLeftoverSnapshots(stateDirectory: string, log: Log): Promise<string[]> {
  const directory = snapshotsDirectory(stateDirectory);
  const removed: string[] = [];
  const records = await readRecords(directory).catch((err: unknown) => {
    log.error({ err }, 'the records of snapshots could not be read; the next start tries again');
    return [];
  });
  for (const { name, origin, group, groupUuid, at } of records)
    try {
      const resumed = await resumeVolumes(groupUuid, listVolumes);
      if (resumed.length > 0) {
        log.warn({ volumes: resumed }, 'resumed volumes that an earlier run left suspended');
        await refresh(groupUuid, origin);
      }
      const there = async (): Promise<boolean> =>
        (await listVolumes()).some((each) => each.name === name && each.groupUuid === groupUuid);
      if (!(await there()) && Math.abs(Date.now() - at) < bornMs) await sleep(birthMs);
      if (await there()) {
        await removeVolume(groupUuid, name);
        removed.push(`${group}/${name}`);
      }
      // Only now does no device lie on the devices that were made for the snapshot.
      if (resumed.length > 0) await refresh(groupUuid, origin);
      await removeRecord(directory, name);
    } catch (err) {
      log.error({ err, snapshot: `${group}/${name}` }, 'a snapshot of an earlier run could not be removed');
    }
  if (removed.length > 0) log.warn({ snapshots: removed }, 'removed snapshots that an earlier run left');
  return removed;
}
