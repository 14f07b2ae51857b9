/**
 * The freeze window: hooks, freeze, the last look at the devices, thaw. Inside it nothing is written to a log or a file,
 * but to files without a name that lie on no device of the job (copy/spool.ts), and the network has no part unless more
 * changed than has room there.
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
 * FREEZE_FAILED, ALREADY_FROZEN, FREEZE_TIMEOUT, HOOK_FAILED, or what a step threw. In every case all is thawed.
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

/** By the kernel names of their devices. */
async function filesystemsOf(live: readonly DeviceBackup[]): Promise<Set<string>> {
  const mounts = await mountsToFreeze(live);
  return new Set([...mounts.values()].flat().map(({ device }) => device));
}

async function windowOf(live: readonly DeviceBackup[], job: JobContext, steps: WindowSteps): Promise<void> {
  const { options, environment, reporter, signal } = job;
  const hookEnvironment = { DATTO_DEVICES: live.map(({ pair }) => pair.device.path).join(' ') };
  // Mounts may have come and gone while this freeze waited for its turn.
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
    // Undone after the thaw.
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
      // After a failure this is what thaws; after success it has nothing left to do.
      await freezer.close();
    }
  } finally {
    // Also where the pre-freeze hook failed: the guard waits.
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
 * Returns the filesystems that are ours to freeze: not the one that LVM freezes while it takes its snapshot. Throws
 * FREEZE_FAILED if there is more than that one by now.
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

/** Each filesystem once; one on a loop device before the one that holds the file. */
function freezeOrder(perDevice: readonly MountedFilesystem[][]): MountedFilesystem[] {
  const mounts = new Map(perDevice.flat().map((mount) => [mount.device, mount]));
  return [...mounts.values()].sort((a, b) => b.depth - a.depth);
}

/** The post-thaw hook undoes the pre-freeze one, so it runs whatever happened, and its failure is a warning. */
async function postThaw(path: string, env: Record<string, string>, reporter: JobReporter): Promise<void> {
  try {
    await runHook(path, env, { timeoutMs: hookTimeoutMs });
  } catch (error) {
    reporter.warn('POST_THAW_HOOK_FAILED', error instanceof Error ? error.message : String(error));
  }
}

/** What was read after the guard thawed by itself is of no use: the work is lost as soon as that happens. */
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
