/**
 * The ledger of one target: which blocks of the device the target lacks, and which blocks it has. It owns the chain,
 * the tracker's feed and all bitmaps of the job, and it has a method for each event. Nothing else changes its bitmaps.
 * It needs neither threads nor devices, so a model tests the invariants on it alone (target-ledger.test.ts):
 *
 * 1. Take, then read: the dirty map is taken before its blocks are read.
 * 2. A possible loss ends the epoch: `trackingLost` makes every block pending that only a later take could have proven.
 * 3. Pending before sent, complete after flushed: a block is durably pending before it is sent. It stops being pending
 *    when the target has confirmed it.
 */
import { Bitmap } from '../../base/bitmap.ts';
import type { Extent } from '../../base/extents.ts';
import { inUnit, markOutside, roundedOut, wholeUnits } from '../../tracking/bitmap-units.ts';
import type { Chain, ChainBase } from '../../tracking/chain.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import type { Epoch } from '../../tracking/tracker.ts';
import type { BackupKind } from '../../api/job-status.ts';
import type { DirtyMapConsumer } from './dirty-map-consumer.ts';
import { driftSample, knownUnits } from './known-content.ts';
import { RecentUnits } from './recent-units.ts';
import type { TargetContents } from './target-contents.ts';
import { WrittenSince } from './written-since.ts';

export interface Tracking {
  readonly consumer: DirtyMapConsumer;
  readonly epoch: Epoch;
}

export interface LedgerSetup {
  readonly chain: Chain;
  /** Chains that no longer describe the target as soon as this job writes to it. */
  readonly rivals: readonly Chain[];
  readonly contents: TargetContents;
  /** Undefined if nothing tracks the device. */
  readonly tracking: Tracking | undefined;
  /** Units that earlier jobs sent (see `RecentUnits`). */
  readonly recent: readonly number[] | undefined;
  /** The target's size now, and its smallest block, in bytes. */
  readonly target: () => { readonly size: number; readonly minimumBlock: number };
  /** The places that could not be read so far. The target has zeros there. */
  readonly unreadable: () => readonly Extent[];
}

/** Blocks that a pass has sent. */
export interface SentBlocks {
  readonly blocks: Bitmap;
  /** Blocks that were read and sent a second time, because a lost connection left them unconfirmed. */
  readonly resent: Bitmap | undefined;
}

export interface FindByTracker {
  /** The allocation map is older than the writes and cannot be read again, so all written blocks count as used. */
  readonly countAsUsed: boolean;
  /** Called with the dirty blocks, before any of them is saved. */
  readonly taken?: (dirty: Bitmap) => void;
}

export class TargetLedger {
  /**
   * The allocation map as it was read last. If it could not be read again, it also has the blocks that were written
   * since. Callers may read it; only the ledger changes it.
   */
  readonly used: Bitmap;
  readonly #setup: LedgerSetup;
  readonly #chain: Chain;
  readonly #contents: TargetContents;
  readonly #recent: RecentUnits;
  readonly #writtenSinceMap: WrittenSince;
  #tracking: Tracking | undefined;

  constructor(setup: LedgerSetup) {
    const { size, unit } = setup.chain.pending;
    this.#setup = setup;
    this.#chain = setup.chain;
    this.#contents = setup.contents;
    this.#recent = new RecentUnits(setup.recent);
    this.#writtenSinceMap = new WrittenSince(size);
    this.#tracking = setup.tracking;
    this.used = new Bitmap(size, unit);
  }

  /** True if a tracker records the writes to the device. It becomes false when tracking is lost. */
  get isTracked(): boolean {
    return this.#tracking !== undefined;
  }

  /** Blocks that the target lacks, in use or not. */
  get pending(): Bitmap {
    return this.#chain.pending;
  }

  /** Returns the blocks in use that the target lacks, without those of `except`. */
  missing(except?: Bitmap): Bitmap {
    const set = this.#chain.pending.intersection(this.used);
    if (except !== undefined) set.andNot(except);
    return set;
  }

  /** Returns the blocks in use that the target lacks, rounded out to the target's smallest block. */
  toSend(): Bitmap {
    return this.#granular(this.missing());
  }

  /** Returns the set without the fingerprint units whose fingerprints may not match the target. */
  known(set: Bitmap): Bitmap {
    return knownUnits(this.#chain, set);
  }

  /** Returns the content that a reconnect must find at the target again (copy/same-image.ts). */
  expectation(): { readonly known: () => Bitmap; readonly distrust: () => Promise<void> } {
    return { known: () => driftSample(this.#chain), distrust: () => this.distrust() };
  }

  /** The target does not hold the content that its chain records. The next backup has to be a full one. Durable. */
  async distrust(): Promise<void> {
    await this.#chain.save({
      state: 'incomplete',
      ...(this.#contents.isOverwritten ? { torn: true } : {}),
    });
  }

  /**
   * Makes durable all that must be durable before the first block is sent (docs/formats/chain.md, "Order of writing").
   */
  async begin(kind: BackupKind): Promise<void> {
    const chain = this.#chain;
    for (const rival of this.#setup.rivals) await rival.save({ state: 'incomplete', torn: true });
    await chain.adopt();
    if (kind === 'full') await chain.reset(this.#setup.target().size);
    if (this.#contents.isOverwritten) await chain.save({ torn: true });
    if (kind === 'differential') {
      // Comparing covers the blocks in use. A free block may have changed unseen, so it is pending if it is used again.
      markOutside(chain.pending, this.used);
      await chain.savePending();
    }
    await this.#contents.begin(kind, this.used);
  }

  /** The allocation map was read. */
  useMap(map: Bitmap): void {
    this.used.copy(map);
  }

  /**
   * Returns the blocks that were written since the previous reading of the allocation map began. Undefined if they are
   * not known. To be called before the map is read.
   */
  beginMapReading(): Bitmap | undefined {
    return this.#writtenSinceMap.begin();
  }

  /**
   * Takes the dirty map, and makes its blocks pending, in memory. Writes no file, so it may be called in a freeze.
   * Returns the dirty blocks. The caller must call `saveFound` next. Throws EPOCH_ENDED: the caller must then call
   * `trackingLost`.
   */
  async takeInFreeze(): Promise<Bitmap> {
    return this.#take({ frozen: true });
  }

  /**
   * Takes the dirty map, and makes its blocks durably pending. Throws EPOCH_ENDED: the caller must then call
   * `trackingLost`.
   */
  async findByTracker({ countAsUsed, taken }: FindByTracker): Promise<void> {
    const dirty = await this.#take({ frozen: false });
    taken?.(dirty);
    if (countAsUsed) this.used.or(inUnit(dirty, this.used.unit));
    await this.saveFound();
  }

  async #take({ frozen }: { readonly frozen: boolean }): Promise<Bitmap> {
    if (this.#tracking === undefined) throw new Error('nothing tracks the device');
    const { dirty } = await this.#tracking.consumer.take({ frozen });
    this.#writtenSinceMap.add(dirty);
    // This take has all writes that the reads of the passes missed. So all blocks that the passes sent are proven.
    this.#chain.unconfirmed = this.#unreadable();
    return dirty;
  }

  /** Makes the blocks durably pending that were found missing since the last save. */
  async saveFound(): Promise<void> {
    if (this.#tracking === undefined) await this.#chain.savePending();
    else await this.#tracking.consumer.secure();
  }

  /** Writes may have been missed: from now on the device is compared. */
  trackingLost(): void {
    const { pending, unconfirmed } = this.#chain;
    this.#tracking = undefined;
    this.#writtenSinceMap.lose();
    if (unconfirmed !== undefined) pending.or(inUnit(unconfirmed, pending.unit));
  }

  /**
   * A comparing pass found these fingerprint units different. Makes them durably pending, in whole units, because
   * nothing records writes between that read and the next one. Returns their size in bytes.
   */
  async findByComparing(different: Bitmap): Promise<number> {
    const { pending } = this.#chain;
    for (const { offset, length } of different.extents()) pending.mark(offset, length);
    for (const { offset, length } of wholeUnits(this.missing())) pending.mark(offset, length);
    await this.#chain.savePending();
    return different.bytes();
  }

  /** The content of the target in these units does not match their fingerprints. In memory. */
  foundAtTarget(different: Bitmap): void {
    for (const { offset, length } of different.extents()) this.#chain.pending.mark(offset, length);
  }

  /** A freeze has kept these blocks, to be sent after the thaw. In memory: the caller must call `saveFound` next. */
  keptInFreeze(blocks: Bitmap): void {
    this.#chain.pending.or(blocks);
  }

  /** A pass has sent these blocks, and the target has confirmed them. Durable. */
  async sent({ blocks, resent }: SentBlocks): Promise<void> {
    this.#recent.note(blocks);
    this.#contents.sent(blocks);
    this.#chain.pending.andNot(blocks);
    this.#chain.unconfirmed = this.#unconfirmed(blocks, resent);
    await this.#saveSent();
  }

  /**
   * The blocks that a freeze kept are sent and confirmed. `known`: units whose new fingerprint is known. Places that
   * could not be read stay pending on disk, even if this job does not complete. Durable.
   */
  async sentFromFreeze(blocks: Bitmap, known: Bitmap): Promise<void> {
    this.#recent.note(known);
    this.#contents.sent(blocks);
    this.#chain.pending.andNot(blocks);
    this.#chain.unconfirmed = this.#unreadable();
    await this.#saveSent();
  }

  /**
   * Saves the record before the pending map. So the next drift check reads some of the sent blocks even if this job
   * never completes. The server may lose them, or restart with an older copy of the image.
   */
  async #saveSent(): Promise<void> {
    if (this.#contents.isOverwritten) await this.#chain.save({ recent: this.#recent.units });
    await this.#chain.savePending();
  }

  /**
   * Returns the blocks that stay pending on disk although they were sent, in case the job ends here.
   *
   * A fingerprint covers a whole unit as it was read. If only some blocks of the unit were sent, the others may have
   * been written between the take and the read. The fingerprint then covers bytes that the target lacks. The next take
   * reports these blocks, and makes them pending. If there is no next take (a crash, the end of the epoch), all such
   * units are pending.
   */
  #unconfirmed(blocks: Bitmap, resent: Bitmap | undefined): Bitmap {
    const set = this.#unreadable();
    const atOnce = Math.max(blocks.unit, this.#setup.target().minimumBlock);
    if (!this.isTracked || atOnce >= fingerprintUnit) return set;
    for (const each of resent === undefined ? [blocks] : [blocks, resent])
      for (const { offset, length } of each.extents()) set.mark(offset, length);
    return set;
  }

  /** Returns the places that could not be read, in fingerprint units. The target has zeros there. */
  #unreadable(): Bitmap {
    const set = new Bitmap(this.used.size, fingerprintUnit);
    for (const { offset, length } of this.#setup.unreadable()) set.mark(offset, length);
    return set;
  }

  #granular(set: Bitmap): Bitmap {
    return roundedOut(set, this.#setup.target().minimumBlock);
  }

  /** Returns the blocks that the target may hold data of although they are not in use. Empty for a recovery point. */
  freed(): Bitmap {
    return this.#contents.freed(this.used);
  }

  /**
   * Calls `trim` to free the space of blocks at the target; it resolves to false if the target refuses. The blocks are
   * made durably pending first, since the content of a trimmed place is not defined.
   */
  async releaseFreed(freed: Bitmap, trim: (freed: Bitmap) => Promise<boolean>): Promise<void> {
    this.#chain.pending.or(freed);
    await this.#chain.savePending();
    if (await trim(freed)) this.#contents.released(freed);
  }

  /** All blocks of the job are sent and confirmed, and `used` is the map of its instant. Durable. */
  async settled(): Promise<void> {
    await this.#contents.settled(this.used);
  }

  /** Returns the blocks in which the new image of a committing target may differ from its base image. */
  touched(): Bitmap {
    return this.#contents.touched((set) => this.#granular(set), this.used);
  }

  /**
   * The target holds an image of one instant. Places that could not be read become pending, so the next backup tries
   * them again. `base`: for a vault, the point that the next backup builds on. Durable.
   */
  async complete(job: {
    readonly uuid: string;
    readonly tracker: string;
    readonly base: ChainBase | undefined;
  }): Promise<void> {
    const { pending } = this.#chain;
    this.#chain.unconfirmed = undefined;
    for (const { offset, length } of this.#setup.unreadable()) pending.mark(offset, length);
    this.#contents.complete(pending, this.#granular(this.used));
    await this.#chain.complete({
      ...(job.base === undefined ? {} : { base: job.base }),
      ...(this.#recent.units.length > 0 ? { recent: this.#recent.units } : {}),
      targetSize: this.#setup.target().size,
      epoch: this.#tracking?.epoch ?? null,
      generations: this.#tracking?.consumer.generations ?? [],
      tracker: job.tracker,
      job: job.uuid,
      completedAt: new Date().toISOString(),
    });
  }
}
