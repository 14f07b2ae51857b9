/**
 * Some of the fingerprint units that a job sent, for its chain's record: where an older copy of the image is put in
 * the place of the target, it differs from the fingerprints there, and the next drift check looks there.
 */
import type { Bitmap } from '../../base/bitmap.ts';
import { fingerprintUnit } from '../../tracking/fingerprints.ts';
import { countWholeUnits, wholeUnits } from '../../tracking/bitmap-units.ts';

/** Per pass, and in all; 2 MiB are read back. */
const perPass = 16;
const most = 32;

export class RecentUnits {
  #units: readonly number[];

  /** `before`: those of the jobs before this one. */
  constructor(before: readonly number[] = []) {
    this.#units = before;
  }

  get units(): readonly number[] {
    return this.#units;
  }

  /** Notes some of the units of what was sent, evenly spread. The last passes count most. */
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
