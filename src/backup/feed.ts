/**
 * What the tracker says, on its way into the pending maps of all chains of the device. Taking destroys nothing
 * until every map that replaces it is durable (invariant 1), so the order is: take, mark, save, commit.
 */
import { Chain, inUnit } from '../tracking/chain.ts';
import type { Taken, TrackedDevice, Tracker } from '../tracking/tracker.ts';

export class Feed {
  readonly tracker: Tracker;
  readonly device: TrackedDevice;
  readonly #chain: Chain;
  readonly #chains: string;
  #taken: Taken[] = [];

  /** `chains`: the folder of all chains; `chain`: the one whose job this is. */
  constructor(tracker: Tracker, device: TrackedDevice, chain: Chain, chains: string) {
    this.tracker = tracker;
    this.device = device;
    this.#chain = chain;
    this.#chains = chains;
  }

  /** Takes the dirty map and marks it in the job's pending map, in memory. Touches no file. Throws EPOCH_ENDED. */
  async take(): Promise<Taken> {
    const taken = await this.tracker.take(this.device);
    this.#chain.pending.or(inUnit(taken.dirty, this.#chain.pending.unit));
    this.#taken.push(taken);
    return taken;
  }

  /** Makes the pending maps of all chains of the device durable, and lets the tracker forget what was taken. */
  async secure(): Promise<void> {
    const taken = this.#taken;
    this.#taken = [];
    await this.#chain.savePending();
    const { record, pending } = this.#chain;
    for (const other of await Chain.ofDevice(this.#chains, record, pending.unit)) {
      // A chain of another epoch knows nothing of what was written since: its next job is a differential anyway.
      const mine = taken.filter(({ epoch }) => epoch.id === other.record.epoch?.id);
      if (other.record.id === record.id || mine.length === 0) continue;
      for (const { dirty } of mine) other.pending.or(inUnit(dirty, other.pending.unit));
      await other.savePending();
    }
    for (const each of taken) each.commit();
  }
}
