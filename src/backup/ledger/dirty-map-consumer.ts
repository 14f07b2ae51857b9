/**
 * Takes a tracker's dirty map, and marks its blocks in the pending maps of all chains of the device. A take erases
 * nothing until every map that replaces it is durable (invariant 1). So the order is: take, mark, save, commit. A chain
 * that misses a take stays behind the generation of the tracker's map, so its next job does not build on it
 * (docs/formats/chain.md, "Generations").
 */
import type { Log } from '../../base/log.ts';
import { inUnit } from '../../tracking/bitmap-units.ts';
import { Chain, isInStep } from '../../tracking/chain.ts';
import { type Generation, newGeneration } from '../../tracking/generation.ts';
import type { Taken, TrackedDevice, TrackedEpoch, Tracker } from '../../tracking/tracker.ts';

export interface DirtyMapConsumerDependencies {
  readonly tracker: Tracker;
  readonly device: TrackedDevice;
  /** The epoch and the generation that `track` returned. */
  readonly tracked: TrackedEpoch;
  /** The chain of this job. */
  readonly chain: Chain;
  /** The folder of all chains. */
  readonly chains: string;
  readonly log: Log;
}

export class DirtyMapConsumer {
  readonly #dependencies: DirtyMapConsumerDependencies;
  #taken: Taken[] = [];
  #generations: readonly Generation[];

  constructor(dependencies: DirtyMapConsumerDependencies) {
    this.#dependencies = dependencies;
    this.#generations = [dependencies.tracked.generation];
  }

  /** The generations of the tracker's map that a chain records if it holds everything that was taken until now. */
  get generations(): readonly Generation[] {
    return this.#generations;
  }

  /** Takes the dirty map and marks it in the job's pending map, in memory. Writes no file. Throws EPOCH_ENDED. */
  async take(options: { readonly frozen: boolean }): Promise<Taken> {
    const { tracker, device, chain } = this.#dependencies;
    const { pending } = chain;
    const taken = await tracker.take(device, options);
    pending.or(inUnit(taken.dirty, pending.unit));
    this.#taken.push(taken);
    return taken;
  }

  /** Makes the pending maps of all chains of the device durable, and lets the tracker forget the maps that it gave. */
  async secure(): Promise<void> {
    const { chain } = this.#dependencies;
    const taken = this.#taken;
    this.#taken = [];
    const last = taken.at(-1);
    if (last === undefined) {
      await chain.savePending();
      return;
    }
    const { epoch, generation } = last;
    const next = newGeneration();
    // If this process dies now, it is not known whether the tracker has forgotten. So a chain is complete in both
    // cases.
    this.#generations = [generation, next];
    if (chain.isInStep(epoch, generation)) await chain.saveTaken(this.#generations);
    // A new chain, or one that is compared: its record is of this epoch only after the job has ended.
    else await chain.savePending();
    await this.#feedOthers(taken, last);
    const forgotten = taken.map((each) => each.commit(next));
    if (forgotten.includes(true)) this.#generations = [next];
  }

  /**
   * Marks the taken blocks in the other chains of this epoch. A chain that is behind already, or cannot be read, is
   * left as it is. It no longer matches the tracker's map once the tracker has forgotten, so its next job is a
   * differential.
   */
  async #feedOthers(taken: readonly Taken[], { epoch, generation }: TrackedEpoch): Promise<void> {
    const { chain, chains, device, log } = this.#dependencies;
    const { pending } = chain;
    // Found by the epoch, which belongs to one device alone: the name of the device may differ from the one in the
    // record.
    const fed = (record: Chain['record']): boolean =>
      record.id !== chain.record.id &&
      record.size === chain.record.size &&
      isInStep(record, epoch, generation);
    const unreadable = (err: Error): void =>
      log.warn({ err, device: device.path }, 'a chain could not be read; its next backup compares');
    for await (const other of Chain.all(chains, pending.unit, fed, unreadable)) {
      if (!other.isInStep(epoch, generation)) continue;
      for (const { dirty } of taken) other.pending.or(inUnit(dirty, pending.unit));
      await other.saveTaken(this.#generations);
    }
  }
}
