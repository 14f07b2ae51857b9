/**
 * Proves that a server that was lost and came back still has this job's image. The size proves nothing. A server may
 * restart with an older copy of the image, or with one that lost a flush. So after every reconnect, before anything is
 * sent, each connection reads data back. It reads the witnesses of the data that this job has sent (witnesses.ts), and
 * some of the content from before the job. If one place differs, the job fails, and the chain is no longer trusted.
 */
import { Bitmap } from '../../base/bitmap.ts';
import { AgentError } from '../../base/errors.ts';
import { type Extent, pieces } from '../../base/extents.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import type { CompareResult } from './messages.ts';
import { wholeUnits } from '../../tracking/bitmap-units.ts';
import { type Witness, Witnesses } from './witnesses.ts';

/** The facts that the owner of the target knows about it, apart from this job's own writes. */
export interface Expectation {
  /** Returns a sample of the places whose fingerprints match the target now. */
  readonly known: () => Bitmap;
  /** The target holds other data, so its chain is no longer trusted. Durable when it resolves. */
  readonly distrust: () => Promise<void>;
}

export class SameImage {
  readonly witnesses = new Witnesses();
  expectation: Expectation | undefined;
  /** Fingerprint units with data of this job that a flush has confirmed. */
  readonly #confirmed: Bitmap;
  #doubtful: Bitmap | undefined;

  constructor(deviceSize: number) {
    this.#confirmed = new Bitmap(deviceSize, fingerprintUnit);
  }

  /** Fingerprint units that were confirmed before the last reconnect. Undefined if there was none. */
  get doubtful(): Bitmap | undefined {
    return this.#doubtful;
  }

  /** A flush has confirmed all of `written`. */
  confirm(written: Bitmap, taken: readonly Witness[]): void {
    for (const { offset, length } of written.extents()) this.#confirmed.mark(offset, length);
    this.witnesses.confirm(taken);
  }

  /** A segment was read from the target, and matched. */
  verified(items: readonly Extent[]): void {
    const chosen = items.map((item) => {
      const units = Math.ceil(item.length / fingerprintUnit);
      const offset = item.offset + Math.floor(Math.random() * units) * fingerprintUnit;
      const length = Math.min(fingerprintUnit, item.offset + item.length - offset);
      return { offset, length, hash: 'recorded' as const };
    });
    this.witnesses.confirm(chosen);
  }

  /**
   * Throws TARGET_MISMATCH if a place differs. `compare` compares the places with the data that every connection reads
   * there.
   */
  async prove(
    name: string,
    compare: (places: readonly Witness[]) => Promise<readonly CompareResult[]>,
  ): Promise<void> {
    this.#doubtful = this.#confirmed.clone();
    const places = [...this.witnesses.all, ...this.#before()];
    const found = (await compare(places)).filter(({ differ }) => differ > 0);
    const [first] = found;
    if (first === undefined) return;
    await this.expectation?.distrust();
    throw new AgentError(
      'TARGET_MISMATCH',
      `${name} was lost and came back with other data: ${first.differ} of ${first.compared} places that were compared ` +
        `differ from what it held before, the first at ${first.first}`,
      {
        hint:
          'the server may have been started over an older copy of the image; put the right one in place, then start ' +
          'the backup again, which will be a full one',
      },
    );
  }

  #before(): Witness[] {
    const set = this.expectation?.known();
    if (set === undefined) return [];
    return [...pieces(wholeUnits(set), fingerprintUnit)].map((place) => ({ ...place, hash: 'recorded' }));
  }
}
