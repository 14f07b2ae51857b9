/** A daemon starts even if boot loader files cannot be located. The next backup of such a device compares. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeTracker } from '../../../test/helpers/fake-tracker.ts';
import { AgentError } from '../../base/errors.ts';
import { silentLog } from '../../base/log.ts';
import type { Device } from '../../devices/device.ts';
import { TrackerRegistry } from '../../tracking/tracker-registry.ts';
import { markBootLoaderFiles, untrackFirst } from './boot-loader.ts';
import { type RebootOutcome, withReasonOfReboot } from './outcome.ts';

const going: RebootOutcome = {
  shutdown: '2026-11-24T10:00:00.000Z',
  why: null,
  devices: [{ device: '/dev/sda1', uuid: 'a', epoch: 'fake-epoch', why: null }],
};
const tracked = {
  ...{ path: '/dev/sda1', major: 8, minor: 1, size: 4096, uuid: 'a' },
  ...{ partition: undefined, diskSequence: undefined },
};
/** A device whose filesystem is mounted at a path under which no file can be opened. */
const device = {
  ...{ path: '/dev/sda1', major: 8, minor: 1, filesystem: { type: 'ext4', uuid: 'a' } },
  mounts: [{ path: 'a\0b', root: '/' }],
} as unknown as Device;

const broken = (): Promise<never> => Promise.reject(new AgentError('FILE_ERROR', 'it cannot be read (EIO)'));

/** A tracker that continues the epoch until the device is untracked. `untrack` may fail first. */
async function machine(untrack: () => Promise<unknown> = () => Promise.resolve()) {
  const fake = fakeTracker();
  const choice = new TrackerRegistry([fake]);
  await choice.start(tracked, 'auto');
  let epochs = 0;
  const trackers = {
    mark: broken,
    untrack: async (which: Pick<Device, 'major' | 'minor'>) => {
      await untrack();
      epochs++;
      await choice.untrack(which);
    },
  };
  const start: typeof choice.start = async (which, wish) => {
    const started = await choice.start(which, wish);
    if (started.tracker === undefined) return started;
    return { ...started, epoch: { ...started.epoch, id: epochs === 0 ? 'fake-epoch' : `anew ${epochs}` } };
  };
  return { trackers, start };
}

test('a device whose boot loader files cannot be located is untracked, and the reason is reported', async () => {
  const { trackers, start } = await machine();
  const { outcome, stillTracked } = await markBootLoaderFiles(
    going,
    () => Promise.resolve([device]),
    trackers,
    silentLog(),
  );
  assert.equal(stillTracked.size, 0);
  assert.equal(outcome.devices[0]?.epoch, null);
  const started = await withReasonOfReboot(start, outcome)(tracked, 'auto');
  assert.ok(started.tracker !== undefined);
  assert.equal(started.epoch.id, 'anew 1');
  assert.match(started.doubt ?? '', /^tracking was not continued over the reboot of 2026-11-24.*boot loader/);
});

for (const [name, listDevices, untrack] of [
  ['devices cannot be listed', broken, () => Promise.resolve()],
  ['trackers cannot be opened', () => Promise.resolve([device]), broken],
] as const)
  test(`${name}: the daemon starts, and the next backup of the device begins a new epoch`, async () => {
    let calls = 0;
    // It fails when the daemon starts, and works later.
    const { trackers, start } = await machine(() => (calls++ === 0 ? untrack() : Promise.resolve()));
    const marks = await markBootLoaderFiles(going, listDevices, trackers, silentLog());
    assert.deepEqual([...marks.stillTracked], ['a']);
    const begin = untrackFirst(withReasonOfReboot(start, marks.outcome), marks.stillTracked, trackers);
    const first = await begin(tracked, 'auto');
    assert.ok(first.tracker !== undefined);
    assert.equal(first.epoch.id, 'anew 1');
    assert.match(first.doubt ?? '', /the blocks that the boot loader may have written were not found: /);
    // The device is untracked only once.
    const second = await begin(tracked, 'auto');
    assert.ok(second.tracker !== undefined && second.epoch.id === 'anew 1');
  });

test('a device that can never be untracked is backed up as if nothing tracked it', async () => {
  const { trackers, start } = await machine(broken);
  const marks = await markBootLoaderFiles(going, broken, trackers, silentLog());
  const begin = untrackFirst(withReasonOfReboot(start, marks.outcome), marks.stillTracked, trackers);
  const started = await begin(tracked, 'auto');
  assert.ok(started.tracker === undefined && /may have missed writes .*EIO/.test(started.why));
  await assert.rejects(begin(tracked, 'ebpf'), { code: 'FILE_ERROR' });
  const other = await begin({ ...tracked, uuid: 'b', minor: 2 }, 'auto');
  assert.ok(other.tracker !== undefined);
});

test('if no epoch continues, no device is read', async () => {
  const none: RebootOutcome = { ...going, devices: [{ ...going.devices[0]!, epoch: null, why: 'mounted' }] };
  const { trackers } = await machine();
  assert.deepEqual((await markBootLoaderFiles(none, broken, trackers, silentLog())).outcome, none);
});
