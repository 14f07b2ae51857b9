/**
 * The parts of the ledger that depend on the kind of target. There are two kinds: an image that is overwritten in
 * place, and a recovery point that is made beside earlier ones and appears when the job completes.
 */
import { Bitmap } from '../../base/bitmap.ts';
import { markOutside } from '../../tracking/bitmap-units.ts';
import type { Chain } from '../../tracking/chain.ts';
import type { BackupKind } from '../../api/job-status.ts';

export interface TargetContents {
  /**
   * True if writing changes the image of the last job. The image is then of no single instant until the new job
   * completes.
   */
  readonly isOverwritten: boolean;
  /** To be called before the first block is sent. The blocks of `used` are in use and will be sent. Durable. */
  begin(kind: BackupKind, used: Bitmap): Promise<void>;
  /** The target has confirmed these blocks. */
  sent(blocks: Bitmap): void;
  /** Returns the blocks that the target may hold data of, although they are not in `used`. */
  freed(used: Bitmap): Bitmap;
  /** The target was told that it may free the space of these blocks. */
  released(blocks: Bitmap): void;
  /** All blocks are sent and confirmed; `used` is the map of the job's instant. Durable. */
  settled(used: Bitmap): Promise<void>;
  /** See `CommittingTarget.buildMap`. `granular` rounds a set out to the target's smallest block. */
  touched(granular: (set: Bitmap) => Bitmap, used: Bitmap): Bitmap;
  /**
   * Marks as pending the blocks that the completed image does not hold. `used` is rounded out to the target's smallest
   * block.
   */
  complete(pending: Bitmap, used: Bitmap): void;
}

/**
 * An image in place. The chain's held map names the blocks that the target may hold data of, in use or not. It includes
 * blocks that will be sent, in case the job is interrupted (docs/formats/chain.md). It serves only to give space back.
 */
export class ImageContents implements TargetContents {
  readonly isOverwritten = true;
  readonly #chain: Chain;
  #held: Bitmap;

  constructor(chain: Chain) {
    this.#chain = chain;
    this.#held = new Bitmap(chain.pending.size, chain.pending.unit);
  }

  async begin(_kind: BackupKind, used: Bitmap): Promise<void> {
    this.#held = await this.#chain.readHeld();
    await this.settled(used);
  }

  sent(blocks: Bitmap): void {
    this.#held.or(blocks);
  }

  freed(used: Bitmap): Bitmap {
    const freed = this.#held.clone();
    freed.andNot(used);
    return freed;
  }

  released(blocks: Bitmap): void {
    this.#held.andNot(blocks);
  }

  async settled(used: Bitmap): Promise<void> {
    this.#held.or(used);
    await this.#chain.saveHeld(this.#held);
  }

  touched(): Bitmap {
    throw new Error('an image in place has no map');
  }

  complete(): void {
    // All that is in use has been sent, and the pending map names the rest.
  }
}

/** A recovery point in a vault. The vault leaves out blocks that are not in use. */
export class PointContents implements TargetContents {
  readonly isOverwritten = false;
  readonly #chain: Chain;
  /** Blocks that the image which the new one builds on certainly holds. */
  readonly #base: Bitmap;
  /** Blocks that this job has sent. The vault keeps none of them if the job does not complete. */
  readonly #unpublished: Bitmap;

  /** `hasBase`: the image builds on that of the chain's last job, which holds all blocks but the pending ones. */
  constructor(chain: Chain, { hasBase }: { readonly hasBase: boolean }) {
    const { size, unit } = chain.pending;
    this.#chain = chain;
    this.#base = new Bitmap(size, unit);
    if (hasBase) {
      this.#base.fill(true);
      this.#base.andNot(chain.pending);
    }
    this.#unpublished = new Bitmap(size, unit);
    this.#chain.unpublished = this.#unpublished;
  }

  begin(kind: BackupKind): Promise<void> {
    if (kind === 'full') this.#base.fill(false);
    return Promise.resolve();
  }

  sent(blocks: Bitmap): void {
    this.#unpublished.or(blocks);
  }

  freed(): Bitmap {
    return new Bitmap(this.#base.size, this.#base.unit);
  }

  released(): void {
    // Nothing is freed.
  }

  settled(): Promise<void> {
    return Promise.resolve();
  }

  touched(granular: (set: Bitmap) => Bitmap, used: Bitmap): Bitmap {
    const set = granular(this.#base).clone();
    set.andNot(granular(used));
    set.or(this.#unpublished);
    return set;
  }

  complete(pending: Bitmap, used: Bitmap): void {
    // The point leaves out chunks that are not in use. If one is used again later, it has to be sent.
    markOutside(pending, used);
  }
}
