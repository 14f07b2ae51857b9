/** Runs random histories in one world: each has a new filesystem and targets that hold nothing. */
import fc from 'fast-check';
import { type Log, type Model, stepsFor } from './steps.ts';
import type { Filesystem, World } from './world.ts';

export interface CampaignOptions {
  readonly seed: number;
  readonly histories: number;
  /** Steps of a history, at most. */
  readonly steps: number;
  /** Milliseconds after which no further history begins. */
  readonly limitMs?: number;
  /** Where a failure of an earlier run is: fast-check's `path`. */
  readonly path?: string;
  readonly log: Log;
  /** Called at the end of each history. */
  readonly onHistory?: () => void;
}

/** Throws fast-check's report for the first history that fails: the seed, the path, and the shrunk steps. */
export async function runCampaign(world: World, options: CampaignOptions): Promise<void> {
  const { seed, histories, steps, limitMs, path, log, onHistory } = options;
  const history = fc.record({
    filesystem: fc.constantFrom<Filesystem>('ext4', 'ext4', 'xfs'),
    commands: fc.commands(stepsFor(log), { maxCommands: steps, size: 'max' }),
  });
  await fc.assert(
    fc.asyncProperty(history, async ({ filesystem, commands }) => {
      log(`history on ${filesystem}`);
      await world.beginHistory(filesystem);
      const model: Model = {
        ...{ mounted: 'rw' as const, filesystem, stateKept: false },
        ...{ imagesKept: new Set<'file' | 'server'>(), backedUp: new Set<'file' | 'server' | 'vault'>() },
      };
      try {
        await fc.asyncModelRun(() => ({ model, real: world }), commands);
      } finally {
        await world.endHistory();
        onHistory?.();
      }
    }),
    {
      ...{ seed, numRuns: histories, includeErrorInReport: true },
      ...(path === undefined ? {} : { path }),
      ...(limitMs === undefined ? {} : { interruptAfterTimeLimit: limitMs, markInterruptAsFailure: false }),
    },
  );
}
