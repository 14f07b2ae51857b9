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
  async take(options: { readonly frozen: boolean }): Promise<Taken> {
    const taken = await this.tracker.take(this.device, options);
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
    // By the epoch, which belongs to one device alone: its name may be another one than in the record. A chain of
    // another epoch knows nothing of what was written since: its next job is a differential anyway.
    const epochs = new Set(taken.map(({ epoch }) => epoch.id));
    const fed = ({ id, epoch, size }: Chain['record']): boolean =>
      id !== record.id && size === record.size && epoch !== null && epochs.has(epoch.id);
    for await (const other of Chain.all(this.#chains, pending.unit, fed)) {
      for (const { dirty, epoch } of taken)
        if (epoch.id === other.record.epoch?.id) other.pending.or(inUnit(dirty, pending.unit));
      await other.savePending();
    }
    for (const each of taken) each.commit();
  }
}
