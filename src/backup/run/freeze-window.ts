/**
 * The freeze window: hooks, freeze, the last reads of the devices, thaw. Inside it nothing is written to a log or a
 * file. The exception is unnamed files that lie on no device of the job (copy/spool.ts). The network is not used,
 * unless more changed than fits there.
 */
import { AgentError } from '../../base/errors.ts';
import { raisePriority } from '../../base/thread-priority.ts';
import type { MountedFilesystem } from '../../devices/stacking.ts';
import { createFreezer } from '../../freeze/freezer.ts';
import { expediteGracePeriods } from '../../freeze/grace-periods.ts';
import { runHook } from '../../freeze/hooks.ts';
import { freezeTurn } from '../../freeze/turns.ts';
import type { DeviceBackup } from '../device-backup.ts';
import type { JobContext } from '../job-context.ts';
import type { JobReporter } from '../job-reporter.ts';
import { mountsToFreeze } from './recheck-mounts.ts';

const hookTimeoutMs = 60_000;

export interface WindowSteps {
  /** Called when everything is ready for the freeze. */
  readonly before?: () => Promise<void>;
  /** Called inside the freeze. Must not write to files. */
  readonly look: () => Promise<void>;
}

/**
 * Freezes every mounted filesystem of these live devices, calls `look`, and thaws. Sets their `freeze_ms`. Throws
 * FREEZE_FAILED, ALREADY_FROZEN, FREEZE_TIMEOUT, HOOK_FAILED, or the error of a step. Everything is thawed in any case.
 */
export async function freezeWindow(
  live: readonly DeviceBackup[],
  job: JobContext,
  steps: WindowSteps,
): Promise<void> {
  const end = await freezeTurn(await filesystemsOf(live), job.signal);
  try {
    await windowOf(live, job, steps);
  } finally {
    end();
  }
}

/** Returns the kernel names of the devices of these filesystems. */
async function filesystemsOf(live: readonly DeviceBackup[]): Promise<Set<string>> {
  const mounts = await mountsToFreeze(live);
  return new Set([...mounts.values()].flat().map(({ device }) => device));
}

async function windowOf(live: readonly DeviceBackup[], job: JobContext, steps: WindowSteps): Promise<void> {
  const { options, environment, reporter, signal } = job;
  const hookEnvironment = { DATTO_DEVICES: live.map(({ pair }) => pair.device.path).join(' ') };
  // Filesystems may have been mounted or unmounted while this freeze waited for its turn.
  const mounts = await mountsToFreeze(live);
  const freezer = await createFreezer({
    mounts: freezeOrder(ours(mounts)).map((mount) => mount.path),
    maxFreezeMs: options.maxFreezeMs,
    runDirectory: environment.runDirectory,
    log: environment.log,
    signal,
  });
  let thawed: Awaited<ReturnType<typeof freezer.thaw>> | undefined;
  let hooked = false;
  try {
    await steps.before?.();
    reporter.phase('freezing');
    if (options.preFreezeHook !== undefined) {
      hooked = true;
      await runHook(options.preFreezeHook, hookEnvironment, { timeoutMs: hookTimeoutMs, signal });
    }
    // These are undone after the thaw.
    using held = new DisposableStack();
    try {
      for (const sink of environment.holdWhileFrozen) {
        sink.hold();
        held.defer(() => sink.release());
      }
      held.defer(raisePriority());
      held.defer(expediteGracePeriods(environment.runDirectory));
      await freezer.freeze();
      reporter.phase('frozen');
      await untilExpired(freezer.expiredSignal, async () => {
        await steps.look();
        if (options.frozenHook !== undefined)
          await runHook(options.frozenHook, hookEnvironment, {
            timeoutMs: options.maxFreezeMs,
            signal: AbortSignal.any([signal, freezer.expiredSignal]),
          });
      });
      thawed = await freezer.thaw();
    } finally {
      // After a failure, this thaws. After success, it does nothing.
      await freezer.close();
    }
  } finally {
    // Also needed if the pre-freeze hook failed: the guard is waiting.
    await freezer.close();
    if (hooked && options.postThawHook !== undefined)
      await postThaw(options.postThawHook, hookEnvironment, reporter);
  }
  for (const device of live) {
    if (device.instant.freezesItself) continue;
    const own = new Set(mounts.get(device)?.map((mount) => mount.path));
    const lengths = thawed.perMount.filter(({ path }) => own.has(path)).map(({ frozenMs }) => frozenMs);
    device.status.freeze_ms = Math.round(Math.max(...lengths, 0) * 10) / 10;
  }
}

/**
 * Returns the filesystems that this job freezes itself, without the one that LVM freezes while it takes its snapshot.
 * Throws FREEZE_FAILED if more than that one is mounted by now.
 */
function ours(mounts: ReadonlyMap<DeviceBackup, MountedFilesystem[]>): MountedFilesystem[][] {
  return [...mounts].flatMap(([{ instant, pair }, each]) => {
    if (!instant.freezesItself) return [each];
    const other = each.find(({ device }) => device !== pair.device.kernelName);
    if (other !== undefined)
      throw new AgentError(
        'FREEZE_FAILED',
        `${other.path} (${other.device}), which lies on ${pair.device.path}, was mounted since the backup of it began`,
        { hint: 'start the backup again' },
      );
    return [];
  });
}

/** Returns each filesystem once. One on a loop device comes before the one that holds its file. */
function freezeOrder(perDevice: readonly MountedFilesystem[][]): MountedFilesystem[] {
  const mounts = new Map(perDevice.flat().map((mount) => [mount.device, mount]));
  return [...mounts.values()].sort((a, b) => b.depth - a.depth);
}

/** Runs the post-thaw hook. It undoes the pre-freeze hook, so it always runs, and its failure is only a warning. */
async function postThaw(path: string, env: Record<string, string>, reporter: JobReporter): Promise<void> {
  try {
    await runHook(path, env, { timeoutMs: hookTimeoutMs });
  } catch (error) {
    reporter.warn('POST_THAW_HOOK_FAILED', error instanceof Error ? error.message : String(error));
  }
}

/** Runs `work`, and rejects as soon as the guard thaws by itself. Data that is read after that is of no use. */
async function untilExpired(expired: AbortSignal, work: () => Promise<void>): Promise<void> {
  const lost = new Promise<never>((_resolve, reject) => {
    const fail = (): void =>
      reject(
        expired.reason instanceof AgentError
          ? expired.reason
          : new AgentError('FREEZE_TIMEOUT', 'the filesystem was thawed before the last pass was complete'),
      );
    if (expired.aborted) fail();
    else expired.addEventListener('abort', fail, { once: true });
  });
  lost.catch(() => undefined);
  await Promise.race([work(), lost]);
  if (expired.aborted) await lost;
}
