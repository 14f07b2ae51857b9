import type { MapResult } from './copy/messages.ts';

/** Facts about the readings of a device's allocation map. The map itself is in the ledger. */
export class AllocationMap {
  #last: MapResult | undefined;
  #lastMs = 0;
  #isCurrent = true;

  /** The result of the last reading that was accepted. Undefined before the first one. */
  get last(): MapResult | undefined {
    return this.#last;
  }

  /** Milliseconds that the last reading took, accepted or not. */
  get lastMs(): number {
    return this.#lastMs;
  }

  /** False after a reading that contradicted itself: another program may have written to the device during it. */
  get isCurrent(): boolean {
    return this.#isCurrent;
  }

  wasRead({ ms }: Pick<MapResult, 'ms'>): void {
    this.#lastMs = ms;
  }

  accept(result: MapResult): void {
    const { filesystem, everything, warnings, usedBytes, ms, groups, groupsRead, groupsInFlux, whyAll } =
      result;
    // The reading itself may carry a bitmap of the whole device.
    this.#last = {
      filesystem,
      everything,
      warnings,
      usedBytes,
      ms,
      groups,
      groupsRead,
      groupsInFlux,
      whyAll,
    };
    this.#isCurrent = true;
  }

  doubt(): void {
    this.#isCurrent = false;
  }
}
