/**
 * An engine that copies nothing, for tests of the daemon and the command. The target's path decides the
 * course of a job:
 *
 * - `nbd://host/done` succeeds after some ticks, `/warn` with a warning; `/fail` fails.
 * - `/forever` runs until it is cancelled; `/stuck` does not end when it is cancelled.
 * - `/frozen` also holds what must be held while frozen.
 * - `/unreachable` is refused by the checks, which take 200 ms for `/slow`.
 * - `/silent` is checked until the checks are cancelled, `/deaf` from then on until the gate of `shutDeaf` is
 *   opened.
 */
import type { JobEnvironment, PreparedJob, PrepareJob, RunningJob } from '../../src/backup/job.ts';
import type { DeviceStatus, JobStatus } from '../../src/api/job-status.ts';
import { trackedDevice } from '../../src/tracking/tracked-device.ts';
import { initialStatus } from '../../src/backup/initial-status.ts';
import { AgentError } from '../../src/base/errors.ts';
import type { DaemonDependencies } from '../../src/daemon/daemon-dependencies.ts';
import type { Device } from '../../src/devices/device.ts';
import { fakeDevice } from './fake-device.ts';
import { fakeTracker } from './fake-tracker.ts';

type Request = Parameters<PrepareJob>[0];

let deaf: Promise<unknown> = Promise.resolve();

/** Lets checks of `/deaf` wait until the returned function is called. */
export function shutDeaf(): () => void {
  const { promise, resolve } = Promise.withResolvers<undefined>();
  deaf = promise;
  return () => resolve(undefined);
}

const size = 100 * 1024 * 1024;

function fakePartition(disk: string, number: number, uuid: string): Device {
  return fakeDevice(`${disk}${number}`, {
    kind: 'partition',
    minor: number,
    lowers: [disk],
    partition: {
      disk: `/dev/${disk}`,
      number,
      start: number * size,
      uuid: `p-${uuid}`,
      label: undefined,
      table: 'gpt',
    },
    filesystem: { type: 'ext4', uuid, label: `root${number}`, blockSize: 4096, size },
    mounts: [{ path: `/mnt/${disk}${number}`, readOnly: false, root: '/', type: 'ext4' }],
    used: size / 2,
    backup: { possible: true, how: 'used blocks' },
  });
}

/** A disk with two partitions, and a second disk. */
export const fakeDevices: readonly Device[] = [
  fakeDevice('fda'),
  fakePartition('fda', 1, '11111111-1111-4111-8111-111111111111'),
  fakePartition('fda', 2, '22222222-2222-4222-8222-222222222222'),
  fakeDevice('fdb', { minor: 16, backup: { possible: false, how: 'swap in use' } }),
];

export function fakeDependencies(tickMs = 20): DaemonDependencies {
  return {
    prepareJob: (request, environment) => prepare(request, environment, tickMs),
    listDevices: () => Promise.resolve(fakeDevices),
    findDevice: async (devices, name) => {
      await Promise.resolve();
      const found = devices.find((each) => [each.path, each.filesystem?.uuid].includes(name));
      if (found === undefined)
        throw new AgentError('DEVICE_NOT_FOUND', `Unable to find block device for UUID ${name}`, {
          hint: "'dattocli devices' lists them",
        });
      return found;
    },
    thawLeftovers: () => Promise.resolve(),
    removeLeftoverSnapshots: () => Promise.resolve(),
    tryLock: () => true,
    trackerCandidates: () => [fakeTracker()],
  };
}

async function prepare(request: Request, environment: JobEnvironment, tickMs: number): Promise<PreparedJob> {
  const how = new URL(request.pairs[0]!.target).pathname.slice(1) || 'done';
  if (how === 'slow') await new Promise((resolve) => setTimeout(resolve, 200));
  if (how === 'silent' || how === 'deaf') {
    const { signal } = request;
    await new Promise((resolve) => signal?.addEventListener('abort', resolve));
    if (how === 'silent') throw signal?.reason;
    await deaf;
  }
  if (how === 'unreachable')
    throw new AgentError('TARGET_UNREACHABLE', `Nobody answers at ${request.pairs[0]!.target}`, {
      hint: 'start the server first',
    });
  for (const { device } of request.pairs) {
    const described = trackedDevice(device, request.devices);
    if (described !== undefined) await environment.startTracking?.(described, request.options.tracker);
  }
  const status: JobStatus = {
    uuid: request.uuid,
    kind: 'full',
    state: 'NOT_STARTED',
    phase: 'preparing',
    paused: false,
    created_at: new Date().toISOString(),
    finished_at: null,
    tracker: 'none',
    rate: 0,
    seconds_left: null,
    warnings: [],
    error: null,
    devices: request.pairs.map((pair): DeviceStatus => ({
      ...initialStatus(pair, pair.target),
      ...{ used_bytes: size / 2, bytes_unsynced: size / 2, pass: 1 },
    })),
  };
  return {
    uuid: request.uuid,
    status: () => structuredClone(status),
    discard: () => Promise.resolve(),
    start: () => run(status, how, environment, tickMs),
  };
}

function run(status: JobStatus, how: string, environment: JobEnvironment, tickMs: number): RunningJob {
  const done = Promise.withResolvers<JobStatus>();
  let ticks = 0;
  const end = (state: JobStatus['state'], error: AgentError | null = null) => {
    clearInterval(timer);
    if (how === 'frozen') for (const each of environment.holdWhileFrozen) each.release();
    Object.assign(status, { state, phase: 'done', rate: 0, seconds_left: null });
    status.finished_at = new Date().toISOString();
    status.error = error?.toDocument() ?? null;
    done.resolve(structuredClone(status));
  };
  const advance = () => {
    if (status.paused) return;
    ticks++;
    const part = ['forever', 'frozen', 'stuck'].includes(how) ? Math.min(ticks, 4) : ticks;
    Object.assign(status, { phase: 'copying', rate: 1e7, seconds_left: 8 - part });
    for (const device of status.devices) {
      device.bytes_transferred = (device.used_bytes / 8) * part;
      device.bytes_sent = device.bytes_transferred;
      device.bytes_unsynced = device.used_bytes - device.bytes_transferred;
    }
    if (how === 'fail' && ticks === 3)
      end(
        'FAILED',
        new AgentError('DEVICE_READ_ERROR', '/dev/fda1 cannot be read at byte 4096', { hint: 'replace it' }),
      );
    if (['done', 'warn', 'slow'].includes(how) && ticks === 8) {
      for (const device of status.devices) device.freeze_ms = 12.5;
      if (how === 'warn')
        status.warnings.push({
          code: 'TARGET_CANNOT_FLUSH',
          message: 'The server offers no flush',
          device: '/dev/fda1',
        });
      end('SUCCEEDED');
    }
  };
  status.state = 'IN_PROGRESS';
  if (how === 'frozen') for (const each of environment.holdWhileFrozen) each.hold();
  const timer = setInterval(advance, tickMs);
  if (how === 'stuck') timer.unref();
  return {
    uuid: status.uuid,
    status: () => structuredClone(status),
    pause: () => {
      status.paused = true;
    },
    resume: () => {
      status.paused = false;
    },
    cancel: async (reason) => {
      if (how === 'stuck') return done.promise.then(() => undefined);
      if (status.state === 'IN_PROGRESS')
        end('CANCELLED', new AgentError('CANCELLED', `Cancelled: ${reason}`));
      await done.promise;
    },
    done: done.promise,
  };
}
