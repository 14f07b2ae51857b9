/**
 * The ledger of one target: which blocks of the device the target lacks, and which blocks it has. It owns the chain, the
 * tracker's feed and all bitmaps of the job, and it has a method for each event. Nothing else changes a bitmap of it. It
 * needs neither threads nor devices, so a model tests the invariants on it alone (target-ledger.test.ts):
 *
 * 1. Take, then read: the dirty map is taken before its blocks are read.
 * 2. A possible loss ends the epoch: `trackingLost` makes every block pending that only a later take could have proven.
 * 3. Pending before sent, complete after flushed: a block is durably pending before it goes out, and stops being pending
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
  /** Chains that are not true of the target any more as soon as this job writes to it. */
  readonly rivals: readonly Chain[];
  readonly contents: TargetContents;
  /** Undefined if nothing tracks the device. */
  readonly tracking: Tracking | undefined;
  /** Units that earlier jobs sent: see RecentUnits. */
  readonly recent: readonly number[] | undefined;
  /** Facts of the target now: its bytes, and the bytes that it takes at once. */
  readonly target: () => { readonly size: number; readonly minimumBlock: number };
  /** The places that could not be read so far; the target has zeros there. */
  readonly unreadable: () => readonly Extent[];
}

/** Blocks that a pass has sent. */
export interface SentBlocks {
  readonly blocks: Bitmap;
  /** Blocks that were read and sent once more, because a lost connection left them unconfirmed. */
  readonly resent: Bitmap | undefined;
}

export class TargetLedger {
  /**
   * The allocation map as it was read last, and what was written since where it could not be read anew. Whoever needs it
   * reads it; only the ledger changes it.
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

  /** True if a tracker knows what is written to the device. It becomes false when tracking is lost. */
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

  /** Returns the blocks in use that the target lacks, rounded out to what it takes at once. */
  toSend(): Bitmap {
    return this.#granular(this.missing());
  }

  /** Returns the set without the fingerprint units whose fingerprints may not be true of the target. */
  known(set: Bitmap): Bitmap {
    return knownUnits(this.#chain, set);
  }

  /** What a reconnect has to find again at the target (copy/same-image.ts). */
  expectation(): { readonly known: () => Bitmap; readonly distrust: () => Promise<void> } {
    return { known: () => driftSample(this.#chain), distrust: () => this.distrust() };
  }

  /** The content of the target is not what was believed: the next backup has to be a full one. Durable. */
  async distrust(): Promise<void> {
    await this.#chain.save({
      state: 'incomplete',
      ...(this.#contents.isOverwritten ? { torn: true } : {}),
    });
  }

  /** Makes durable what must be so before the first block goes out (docs/formats/chain.md, "Order of writing"). */
  async begin(kind: BackupKind): Promise<void> {
    const chain = this.#chain;
    for (const rival of this.#setup.rivals) await rival.save({ state: 'incomplete', torn: true });
    await chain.adopt();
    if (kind === 'full') await chain.reset(this.#setup.target().size);
    if (this.#contents.isOverwritten) await chain.save({ torn: true });
    if (kind === 'differential') {
      // Comparing covers what is in use. What is free may have changed unseen, and counts when it is used again.
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
   * To be called before the allocation map is read: returns what was written since the reading before began. Undefined if
   * that is not known.
   */
  beginMapReading(): Bitmap | undefined {
    return this.#writtenSinceMap.begin();
  }

  /**
   * Takes the dirty map, and makes what it names pending, in memory. Writes no file, so it may be called in a freeze.
   * `saveFound` has to follow. Returns what was dirty. Throws EPOCH_ENDED: `trackingLost` has to follow.
   */
  async takeInFreeze(): Promise<Bitmap> {
    return this.#take({ frozen: true });
  }

  /**
   * Takes the dirty map, and makes what it names durably pending. `countAsUsed`: the allocation map is older than the
   * writes and cannot be read anew, so all that was written counts as used. Returns what was dirty. Throws EPOCH_ENDED:
   * `trackingLost` has to follow.
   */
  async findByTracker({ countAsUsed }: { readonly countAsUsed: boolean }): Promise<Bitmap> {
    const dirty = await this.#take({ frozen: false });
    if (countAsUsed) this.used.or(inUnit(dirty, this.used.unit));
    await this.saveFound();
    return dirty;
  }

  async #take({ frozen }: { readonly frozen: boolean }): Promise<Bitmap> {
    if (this.#tracking === undefined) throw new Error('nothing tracks the device');
    const { dirty } = await this.#tracking.consumer.take({ frozen });
    this.#writtenSinceMap.add(dirty);
    // What was written behind the reads of the passes is in this take, so all that they sent is proven.
    this.#chain.unconfirmed = this.#unreadable();
    return dirty;
  }

  /** Makes durable what was found missing since the last save. */
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
   * A comparing pass found these fingerprint units different. Makes them durably pending, in whole units, because nobody
   * tells what is written between that read and the next one. Returns how many bytes they are.
   */
  async findByComparing(different: Bitmap): Promise<number> {
    const { pending } = this.#chain;
    for (const { offset, length } of different.extents()) pending.mark(offset, length);
    for (const { offset, length } of wholeUnits(this.missing())) pending.mark(offset, length);
    await this.#chain.savePending();
    return different.bytes();
  }

  /** The target holds something else in these units than their fingerprints say. In memory. */
  foundAtTarget(different: Bitmap): void {
    for (const { offset, length } of different.extents()) this.#chain.pending.mark(offset, length);
  }

  /** A freeze has kept these blocks, to be sent after the thaw. In memory: `saveFound` has to follow. */
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
   * The blocks that a freeze kept are sent and confirmed. `known`: units whose new fingerprint is known. Places that could
   * not be read stay pending on disk, also if this job does not complete. Durable.
   */
  async sentFromFreeze(blocks: Bitmap, known: Bitmap): Promise<void> {
    this.#recent.note(known);
    this.#contents.sent(blocks);
    this.#chain.pending.andNot(blocks);
    this.#chain.unconfirmed = this.#unreadable();
    await this.#saveSent();
  }

  /**
   * The record comes first, so that the next drift check reads some of what was sent even if this job never completes: the
   * server may lose it, or be started again over an older copy of the image.
   */
  async #saveSent(): Promise<void> {
    if (this.#contents.isOverwritten) await this.#chain.save({ recent: this.#recent.units });
    await this.#chain.savePending();
  }

  /**
   * What stays pending on disk although it was sent, should the job end here.
   *
   * A fingerprint is that of a whole unit as it was read. If only some blocks of the unit were sent, the others may have
   * been written between the take and the read: the fingerprint is then of bytes that the target lacks. The next take
   * tells, and these blocks are pending then. If there is none (a crash, the end of the epoch), all such units are.
   */
  #unconfirmed(blocks: Bitmap, resent: Bitmap | undefined): Bitmap {
    const set = this.#unreadable();
    const atOnce = Math.max(blocks.unit, this.#setup.target().minimumBlock);
    if (!this.isTracked || atOnce >= fingerprintUnit) return set;
    for (const each of resent === undefined ? [blocks] : [blocks, resent])
      for (const { offset, length } of each.extents()) set.mark(offset, length);
    return set;
  }

  /** The places of which the target has zeros instead, in fingerprint units. */
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
   * Lets `trim` free the space of blocks at the target; it resolves to false if the target refuses. The blocks are durably
   * pending before, since nobody knows what a target holds where it was trimmed.
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

  /** Returns the blocks in which the new image of a committing target may differ from the one that it builds on. */
  touched(): Bitmap {
    return this.#contents.touched((set) => this.#granular(set), this.used);
  }

  /**
   * The target holds an image of one instant. Places that could not be read are pending, so the next backup tries them
   * again. `base`: for a vault, what the next backup builds on. Durable.
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
