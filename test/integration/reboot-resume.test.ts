/**
 * Proves when an epoch continues after a reboot and when it does not, without a reboot. Filesystems in image
 * files stand for the devices, a tracker in memory for the kernel's, and another boot ID for another boot.
 * vm-reboot.test.ts covers the kernel's part. Needs root, e2fsprogs.
 */
import assert from 'node:assert/strict';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { Bitmap } from '../../src/base/bitmap.ts';
import { MiB } from '../../src/base/bytes.ts';
import { resumeAfterReboot } from '../../src/daemon/reboot/resume.ts';
import { saveReboot } from '../../src/daemon/reboot/save.ts';
import type { RebootOutcome } from '../../src/daemon/reboot/outcome.ts';
import type { Device } from '../../src/devices/device.ts';
import { probeDevice } from '../../src/devices/probe-device.ts';
import { TrackerRegistry } from '../../src/tracking/tracker-registry.ts';
import { markRecordUsed, readRecord, writeRecord } from '../../src/tracking/reboot/place.ts';
import { newGeneration } from '../../src/tracking/generation.ts';
import type {
  DeviceNumbers,
  Epoch,
  Remains,
  TrackedDevice,
  TrackedEpoch,
  Tracker,
} from '../../src/tracking/tracker.ts';
import { atEnd, type EndingTest } from '../helpers/cleanup.ts';
import { exec } from '../helpers/exec.ts';
import { fakeDevice } from '../helpers/fake-device.ts';

/** A tracker that lives in the memory of one boot. */
class MemoryTracker implements Tracker {
  readonly kind = 'ebpf';
  readonly devices = new Map<string, TrackedEpoch & { device: TrackedDevice; dirty: Bitmap }>();
  lost: string | undefined;
  /** True if the devices are detached. Their maps remain. */
  gone = false;
  /** True to never settle, as if the kernel takes long to load a program. */
  hangs = false;
  #number = 0;

  #key({ major, minor }: Pick<TrackedDevice, 'major' | 'minor'>): string {
    return `${major}:${minor}`;
  }

  track(device: TrackedDevice): Promise<TrackedEpoch & { doubt: undefined }> {
    const key = this.#key(device);
    const known = this.devices.get(key) ?? {
      device,
      epoch: { id: `${Math.random()} ${this.#number++}`, since: 1 },
      generation: newGeneration(),
      dirty: new Bitmap(device.size, 4096),
    };
    this.devices.set(key, known);
    if (this.hangs) return new Promise(() => undefined);
    return Promise.resolve({ ...known, doubt: undefined });
  }

  remains(device: DeviceNumbers): Remains | undefined {
    const known = this.devices.get(this.#key(device));
    const { gone, lost } = this;
    return known && { ...known, uuid: known.device.uuid, gone: gone ? 'it is gone' : undefined, lost };
  }

  take(device: TrackedDevice): ReturnType<Tracker['take']> {
    const known = this.devices.get(this.#key(device))!;
    return Promise.resolve({ ...known, dirty: known.dirty.clone(), commit: () => false });
  }

  resume(device: TrackedDevice, from: Parameters<NonNullable<Tracker['resume']>>[1]): Promise<void> {
    const known = this.devices.get(this.#key(device))!;
    known.dirty.or(from.dirty);
    const { epoch, generation = known.generation } = from;
    this.devices.set(this.#key(device), { ...known, epoch, generation });
    return Promise.resolve();
  }

  state(device: TrackedDevice): ReturnType<Tracker['state']> {
    const known = this.devices.get(this.#key(device));
    return known && { kind: 'ebpf', epoch: known.epoch, unit: 4096, memory: 1, pinned: true, dirtyBytes: 0 };
  }

  doubt(): string | undefined {
    return this.lost;
  }

  untrack(device: Pick<TrackedDevice, 'major' | 'minor'>): Promise<void> {
    this.devices.delete(this.#key(device));
    return Promise.resolve();
  }

  tracked(): TrackedDevice[] {
    return [...this.devices.values()].map(({ device }) => device);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

interface Machine {
  readonly directory: string;
  readonly image: string;
  readonly place: string;
  /** Returns the device as the inventory would describe it now. */
  readonly look: (more?: Partial<Device>) => Promise<Device>;
  /** Simulates a clean shutdown after which these blocks are dirty. Returns the epoch. */
  readonly shutDown: (how?: {
    blocks?: number[];
    lost?: string;
    more?: Partial<Device>;
    /** Runs before a second save, at which the device is detached. */
    detached?: (tracker: MemoryTracker) => unknown;
  }) => Promise<{ epoch: Epoch; leftOut: readonly string[] }>;
  /** Simulates the next boot. Returns undefined if the epoch continues, otherwise the reason. */
  readonly start: (how?: {
    devices?: readonly Device[];
    bootId?: string;
    tracker?: MemoryTracker;
    limitMs?: number;
    report?: (outcome: RebootOutcome) => Promise<void>;
  }) => Promise<string | undefined>;
}

const boots = {
  one: '11111111-1111-4111-8111-111111111111',
  two: '22222222-2222-4222-8222-222222222222',
} as const;

async function machineFor(t: EndingTest): Promise<Machine> {
  const directory = await mkdtemp(join(tmpdir(), 'reboot-test-'));
  atEnd(t, () => rm(directory, { recursive: true, force: true }));
  const image = join(directory, 'image');
  await writeFile(image, '');
  await truncate(image, 32 * MiB);
  await exec('mke2fs', ['-q', '-t', 'ext4', image]);
  const place = join(directory, 'record');
  const choice = (tracker: Tracker): TrackerRegistry =>
    new TrackerRegistry([
      {
        kind: 'ebpf',
        support: () => Promise.resolve({ supported: true, why: '', help: '' }),
        open: () => Promise.resolve(tracker),
        leftSomething: () => true,
      },
    ]);
  const look = async (more: Partial<Device> = {}): Promise<Device> =>
    fakeDevice('fdx', {
      ...{ path: image, major: 4095, minor: 77, size: 32 * MiB },
      filesystem: (await probeDevice(image)).filesystem,
      ...more,
    });
  return {
    directory,
    image,
    place,
    look,
    shutDown: async ({ blocks = [], lost, more, detached } = {}) => {
      const tracker = new MemoryTracker();
      const trackers = choice(tracker);
      const device = await look(more);
      const described = {
        ...device,
        partition: undefined,
        diskSequence: 1,
        uuid: device.filesystem?.uuid ?? '',
      };
      const { epoch } = await tracker.track(described);
      for (const block of blocks) tracker.devices.get('4095:77')!.dirty.mark(block * 4096, 4096);
      tracker.lost = lost;
      const save = (devices: readonly Device[]) =>
        saveReboot({ trackers, devices, bootId: boots.one, place });
      let { leftOut } = await save([device]);
      if (detached !== undefined) {
        tracker.gone = true;
        await detached(tracker);
        // Another device has received its number.
        ({ leftOut } = await save([{ ...device, path: '/dev/another', filesystem: undefined }]));
      }
      return { epoch, leftOut: leftOut.map(({ why }) => why) };
    },
    start: async ({
      devices,
      bootId = boots.two,
      tracker = new MemoryTracker(),
      limitMs = 60_000,
      report = () => Promise.resolve(),
    } = {}) => {
      const present = devices ?? [await look()];
      const tracked = tracker.devices.size;
      const outcome = await resumeAfterReboot({
        ...{ trackers: choice(tracker), listDevices: () => Promise.resolve(present), bootId, place },
        ...{ waitMs: 300, bootedAt: Date.now(), limitMs, report },
      });
      if (outcome.why !== null) return outcome.why;
      assert.equal(outcome.devices.length, 1);
      if (tracked === 0 && !tracker.hangs)
        assert.equal(tracker.devices.size, outcome.devices[0]!.why === null ? 1 : 0, 'nothing stays tracked');
      return outcome.devices[0]!.why ?? undefined;
    },
  };
}

test('an epoch continues, once, with its dirty blocks', async (t) => {
  const machine = await machineFor(t);
  const { epoch } = await machine.shutDown({ blocks: [3, 500] });
  const tracker = new MemoryTracker();
  assert.equal(await machine.start({ tracker }), undefined);
  const [known] = tracker.devices.values();
  assert.deepEqual(known!.epoch, epoch);
  assert.deepEqual(
    [...known!.dirty.extents()].map(({ offset }) => offset / 4096),
    [3, 500],
  );
  assert.match((await machine.start()) ?? '', /^there is no record of a clean shutdown/);
});

test('an epoch does not continue if the device is gone, duplicated, resized or a loop device', async (t) => {
  const machine = await machineFor(t);
  const device = await machine.look();
  const cases: [string, readonly Device[], RegExp][] = [
    ['gone', [], /^no device with the UUID .* was there before the mounts$/],
    ['twice', [device, { ...device, path: '/dev/copy' }], / and .* have the same UUID$/],
    ['size', [{ ...device, size: 64 * MiB }], /^its size in bytes was "33554432" and is "67108864"$/],
    ['loop', [{ ...device, kind: 'loop' }], /^a loop device is made again/],
  ];
  for (const [what, devices, why] of cases) {
    await machine.shutDown();
    assert.match((await machine.start({ devices })) ?? '', why, what);
  }
});

test('an epoch does not continue if the filesystem shows signs of life', async (t) => {
  const machine = await machineFor(t);
  for (const [tool, ...args] of [
    ['tune2fs', '-C', '7', machine.image],
    ['debugfs', '-w', '-R', 'mkdir d', machine.image],
    ['e2fsck', '-f', '-p', machine.image],
  ] as const) {
    await machine.shutDown();
    await exec(tool, args);
    assert.match((await machine.start()) ?? '', /^its .* was .* and is /, tool);
  }
});

test('an epoch does not continue in the same boot, with a damaged record, or after tracking began', async (t) => {
  const machine = await machineFor(t);
  await machine.shutDown();
  assert.match((await machine.start({ bootId: boots.one })) ?? '', /of this boot/);
  await machine.shutDown();
  const bytes = await readRecord(machine.place);
  bytes![100]! ^= 1;
  await writeRecord(machine.place, bytes!);
  assert.match((await machine.start()) ?? '', /of no use: it is damaged$/);
  await machine.shutDown();
  const tracker = new MemoryTracker();
  const device = await machine.look();
  await tracker.track({ ...device, partition: undefined, diskSequence: 1, uuid: device.filesystem!.uuid! });
  assert.match((await machine.start({ tracker })) ?? '', /^its tracking already began again in this boot$/);
});

test('a shutdown leaves out an uncertain device, and the next boot gives the reason', async (t) => {
  const machine = await machineFor(t);
  const lost = 'writes on their way could not be remembered: 1';
  assert.deepEqual((await machine.shutDown({ lost })).leftOut, [lost]);
  assert.equal(await machine.start(), lost);
  await machine.shutDown({ more: { kind: 'loop' } });
  assert.match((await machine.start()) ?? '', /^a loop device/);
});

test('a device that is detached between two saves keeps its record, if nothing was written since', async (t) => {
  const machine = await machineFor(t);
  const { epoch, leftOut } = await machine.shutDown({ blocks: [3], detached: () => undefined });
  assert.deepEqual(leftOut, []);
  const tracker = new MemoryTracker();
  assert.equal(await machine.start({ tracker }), undefined);
  const [known] = tracker.devices.values();
  assert.deepEqual(known!.epoch, epoch);

  const written = await machine.shutDown({
    blocks: [3],
    detached: ({ devices }) => devices.get('4095:77')!.dirty.mark(5 * 4096, 4096),
  });
  assert.match(written.leftOut.join(), /^4\.00 KiB of it were written after it was recorded/);
  assert.match(
    (await machine.start()) ?? '',
    /written after it was recorded/,
    'the reason is found by its UUID',
  );

  // The record of another boot and a used record are ignored.
  await machine.shutDown();
  const bytes = await readRecord(machine.place);
  await markRecordUsed(machine.place, bytes!, boots.two);
  const after = await machine.shutDown({ more: { kind: 'loop' }, detached: () => undefined });
  assert.match(after.leftOut.join(), /^a loop device is made again/, 'the reason of the first save stays');
  const untracked = await machine.shutDown({ detached: ({ devices }) => devices.clear() });
  assert.deepEqual(untracked.leftOut, ['its tracking has ended since']);
});

test('wherever the resume is killed, the reason is known, and the record is not used again', async (t) => {
  const machine = await machineFor(t);
  const reports = (count: number, told: RebootOutcome[]) => (outcome: RebootOutcome) => {
    told.push(outcome);
    return told.length === count ? Promise.reject(new Error('killed')) : Promise.resolve();
  };
  for (const killedAt of [1, 2]) {
    const { epoch } = await machine.shutDown();
    const told: RebootOutcome[] = [];
    const tracker = new MemoryTracker();
    await assert.rejects(machine.start({ tracker, report: reports(killedAt, told) }), /killed/);
    const [first] = told[0]!.devices;
    assert.equal(first!.epoch, epoch.id, 'it may continue');
    assert.match(first!.why ?? '', /did not continue it: it was ended before/);
    if (killedAt === 1) {
      assert.equal(tracker.devices.size, 0, 'nothing was used');
      assert.equal(await machine.start(), undefined);
    } else {
      assert.match(
        (await machine.start()) ?? '',
        /^this boot began to use the record and did not come to an end$/,
      );
      await machine.shutDown();
      await markRecordUsed(machine.place, (await readRecord(machine.place))!, boots.one);
      assert.match((await machine.start()) ?? '', /^an earlier boot began to use the record/);
    }
    assert.match((await machine.start()) ?? '', /^there is no record/);
  }
});

test('the resume ends within its time limit, and names the unfinished devices', async (t) => {
  const machine = await machineFor(t);
  const { epoch } = await machine.shutDown();
  const tracker = new MemoryTracker();
  tracker.hangs = true;
  const told: RebootOutcome[] = [];
  const why = await machine.start({
    ...{ tracker, limitMs: 500 },
    report: (outcome) => Promise.resolve(void told.push(outcome)),
  });
  assert.match(why ?? '', /did not continue it: it was not done with this device after 1 s$/);
  assert.equal(told.at(-1)!.devices[0]!.why, why);
  assert.notEqual([...tracker.devices.values()][0]!.epoch.id, epoch.id);
  assert.equal(await readRecord(machine.place), undefined);
});
