/**
 * Runs random histories on one machine. Each history has new filesystems and empty targets. At its end each
 * used target gets one more incremental, all recovery points are read again, and the last images are checked
 * by e2fsck or xfs_repair. So damage by a step shows in the same history.
 */
import fc from 'fast-check';
import { backUp, nameOf } from './backup-steps.ts';
import type { DiskName, Filesystem } from './disk.ts';
import { judgePoints, judgeWhole, type RightImage } from './judge.ts';
import type { Recorder } from './step.ts';
import { stepsFor } from './steps.ts';
import { forgetAndPrune } from './vault-steps.ts';
import type { TargetName, World } from './world.ts';

export interface CampaignOptions {
  readonly seed: number;
  readonly histories: number;
  /** Highest number of steps of a history. */
  readonly steps: number;
  /** Half of the steps have names that match. */
  readonly favoured?: RegExp;
  /** Milliseconds after which no further history begins. */
  readonly limitMs?: number;
  /** Milliseconds for shrinking a history that failed. */
  readonly shrinkMs?: number;
  /** The `path` of fast-check, which repeats a failure of an earlier run. */
  readonly path?: string;
  readonly log: (line: string) => void;
  /** Called for each step that ran. */
  readonly onStep?: (kind: string) => void;
  /** Called at the end of each history. */
  readonly onHistory?: () => void;
}

/** A history that failed, shrunk. */
export interface Failure {
  readonly seed: number;
  readonly path: string;
  /** Number of histories before the failure. */
  readonly after: number;
  readonly shrinks: number;
  /** The steps of the shrunk history. */
  readonly history: string;
  readonly error: string;
}

/** Plays histories until one fails or the time is over. Returns the failure if there is one. */
export async function runCampaign(world: World, options: CampaignOptions): Promise<Failure | undefined> {
  const { seed, histories, steps, limitMs = Infinity, shrinkMs = Infinity, path, log } = options;
  const began = performance.now();
  let images: RightImage[] = [];
  let failedAt: number | undefined;
  const recorder: Recorder = {
    step: (kind, details, said, ms) => {
      options.onStep?.(kind);
      log(`${`${kind} ${details}`.trim()}${said === undefined ? '' : `: ${said}`} (${Math.round(ms)} ms)`);
    },
    image: (image) => {
      images = [...images.filter((each) => each.path !== image.path), image];
    },
  };
  const anyHistory = fc.record({
    a: fc.constantFrom<Filesystem>('ext4', 'ext4', 'xfs'),
    b: fc.constantFrom<Filesystem>('ext4', 'xfs'),
    sameUuid: fc.boolean(),
    commands: fc
      .commands(stepsFor(recorder, options.favoured), { maxCommands: steps, size: 'max' })
      .filter((commands) => [...commands].length > 0),
  });
  const details = await fc.check(
    fc.asyncProperty(anyHistory, async ({ a, b, sameUuid, commands }) => {
      // A history that is not played counts as good.
      const until = failedAt === undefined ? began + limitMs : failedAt + shrinkMs;
      if (performance.now() > until) return;
      images = [];
      log(`history on ${a} and ${b}${sameUuid ? ' with one UUID' : ''}`);
      await world.beginHistory();
      try {
        const uuid = sameUuid ? '6a3c1f0e-8a5d-4c59-9d9b-2f0f4f4e7a11' : undefined;
        for (const [disk, type] of [
          [world.disks.a, a],
          [world.disks.b, b],
        ] as const) {
          await disk.format(type, uuid);
          await disk.mount('rw');
          await disk.writeFiles(seed, false);
        }
        await fc.asyncModelRun(() => ({ model: world, real: world }), commands);
        await endOf(world, recorder, () => images);
      } catch (thrown) {
        failedAt ??= performance.now();
        throw thrown;
      } finally {
        await world.endHistory();
        options.onHistory?.();
      }
    }),
    { seed, numRuns: histories, ...(path === undefined ? {} : { path }) },
  );
  if (!details.failed || details.counterexample === null) return undefined;
  const [{ a, b, sameUuid, commands }] = details.counterexample;
  const thrown = details.errorInstance;
  return {
    ...{ seed: details.seed, path: details.counterexamplePath, after: details.numRuns },
    shrinks: details.numShrinks,
    history: `${a} and ${b}${sameUuid ? ' with one UUID' : ''}: ${[...commands].map(String).join(', ')}`,
    error: thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown),
  };
}

async function endOf(world: World, recorder: Recorder, images: () => readonly RightImage[]): Promise<void> {
  const backedUp = [...world.backedUp].map((pair) => {
    const [disk, target] = pair.split(' ') as [DiskName, TargetName];
    return { disk, target };
  });
  const [ofA, ofB] = [
    backedUp.filter(({ disk }) => disk === 'a'),
    backedUp.filter(({ disk }) => disk === 'b'),
  ];
  for (let job = 0; job < Math.max(ofA.length, ofB.length); job++) {
    const pairs = [ofA[job], ofB[job]].filter((pair) => pair !== undefined);
    const began = performance.now();
    const request = { kind: 'incremental', pairs, options: { connections: 1 } } as const;
    const said = await backUp(recorder, world, request);
    recorder.step('incremental at the end', nameOf(pairs), said, performance.now() - began);
  }
  // One image is enough, because all were compared with the device already.
  const image = images().findLast(({ path }) => !path.includes('/point-'));
  if (image !== undefined) await judgeWhole(image);
  await judgePoints(world);
  for (const target of ['vault', 'copy'] as const)
    if ((target === 'vault' || world.copy !== undefined) && world.vaultAt(target).known.length > 1) {
      const began = performance.now();
      const said = await forgetAndPrune(world, target);
      recorder.step('forget and prune at the end', target, said, performance.now() - began);
    }
  await judgePoints(world);
  await world.assertNothingLeft();
}
