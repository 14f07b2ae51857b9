/**
 * Some of the fingerprint units that a job sent, for its chain's record. If an older copy of the image replaces the
 * target, these units differ from their fingerprints. The next drift check reads them.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import { countWholeUnits, wholeUnits } from '../../tracking/bitmap-units.ts';

/** Units noted for each pass, and in all; 2 MiB are read back. */
const perPass = 16;
const most = 32;

export class RecentUnits {
  #units: readonly number[];

  /** `before`: the units of earlier jobs. */
  constructor(before: readonly number[] = []) {
    this.#units = before;
  }

  get units(): readonly number[] {
    return this.#units;
  }

  /** Notes some units of a set that was sent, evenly spread. The last passes count most. */
  note(sent: Bitmap): void {
    const step = Math.max(1, countWholeUnits(sent) / perPass);
    const chosen: number[] = [];
    let rank = 0;
    for (const { offset, length } of wholeUnits(sent)) {
      const count = Math.ceil(length / fingerprintUnit);
      for (;;) {
        const at = Math.floor(chosen.length * step);
        if (chosen.length === perPass || at >= rank + count) break;
        chosen.push(offset / fingerprintUnit + at - rank);
      }
      rank += count;
    }
    this.#units = [...new Set([...this.#units, ...chosen])].slice(-most);
  }
}
