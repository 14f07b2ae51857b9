import assert from 'node:assert/strict';
import test from 'node:test';
import { Bitmap } from '../base/bitmap.ts';
import { AgentError } from '../base/errors.ts';
import { type TrackerCandidate, TrackerRegistry } from './tracker-registry.ts';
import type { TrackedDevice, Tracker, TrackingState } from './tracker.ts';

const device: TrackedDevice = {
  path: '/dev/sda1',
  major: 8,
  minor: 1,
  size: 1 << 20,
  partition: undefined,
  diskSequence: 3,
  uuid: 'u',
};

/** A tracker that follows every device, and records the calls in `log`. */
function tracker(kind: Tracker['kind'], log: string[]): Tracker {
  let state: TrackingState | undefined;
  return {
    kind,
    track: () => {
      state ??= {
        ...{ kind, epoch: { id: `${kind}-1`, since: 5 }, unit: 4096, memory: 1, pinned: true, dirtyBytes: 0 },
      };
      log.push(`${kind} track`);
      return Promise.resolve({ epoch: state.epoch, generation: 'aa', doubt: undefined });
    },
    take: () =>
      Promise.resolve({
        ...{ epoch: state!.epoch, generation: 'aa', dirty: new Bitmap(1 << 20, 4096) },
        commit: () => true,
      }),
    state: () => state,
    doubt: () => 'lost one',
    untrack: () => {
      state = undefined;
      log.push(`${kind} untrack`);
      return Promise.resolve();
    },
    close: () => {
      log.push(`${kind} close`);
      return Promise.resolve();
    },
  };
}

function candidate(
  kind: Tracker['kind'],
  log: string[],
  refusal?: AgentError,
  left = false,
): TrackerCandidate {
  return {
    kind,
    support: () =>
      Promise.resolve({ supported: refusal === undefined, why: refusal?.message ?? 'it can', help: '' }),
    open: () => {
      log.push(`${kind} open`);
      return refusal === undefined ? Promise.resolve(tracker(kind, log)) : Promise.reject(refusal);
    },
    leftSomething: () => left,
  };
}

const noBtf = new AgentError('NOT_SUPPORTED', 'no BTF here', { hint: 'use a newer kernel' });

test('auto takes the best tracker that works, and opens it once', async () => {
  const log: string[] = [];
  const choice = new TrackerRegistry([candidate('ebpf', log), candidate('blktrace', log)]);
  const first = await choice.start(device, 'auto');
  const second = await choice.start(device, 'auto');
  assert.deepEqual(
    [first, second].map((each) => each.tracker !== undefined && [each.tracker.kind, each.began]),
    [
      ['ebpf', true],
      ['ebpf', false],
    ],
  );
  assert.deepEqual(log, ['ebpf open', 'ebpf track', 'ebpf track']);
});

test('auto tries the next tracker if one refuses, and says why none is left', async () => {
  const log: string[] = [];
  const choice = new TrackerRegistry([candidate('ebpf', log, noBtf), candidate('blktrace', log)]);
  assert.equal((await choice.start(device, 'auto')).tracker?.kind, 'blktrace');
  const busy = new AgentError('DEVICE_BUSY', 'traced by another');
  const none = new TrackerRegistry([candidate('ebpf', log, noBtf), candidate('blktrace', log, busy)]);
  assert.deepEqual(await none.start(device, 'auto'), {
    tracker: undefined,
    why: 'no tracker records the writes to it (ebpf: no BTF here; blktrace: traced by another)',
  });
});

test('a tracker that was asked for is used, or the error says what would help', async () => {
  const log: string[] = [];
  const choice = new TrackerRegistry([candidate('ebpf', log, noBtf), candidate('blktrace', log)]);
  assert.equal((await choice.start(device, 'blktrace')).tracker?.kind, 'blktrace');
  await assert.rejects(choice.start(device, 'ebpf'), (error: AgentError) => {
    assert.equal(error.code, 'NOT_SUPPORTED');
    assert.match(error.message, /\/dev\/sda1 cannot be tracked by ebpf: no BTF here/);
    assert.match(error.hint ?? '', /use a newer kernel/);
    return true;
  });
  assert.deepEqual(await choice.start(device, 'none'), {
    tracker: undefined,
    why: 'tracking was turned off (--tracker none)',
  });
});

test('an error that is not a refusal is thrown', async () => {
  const gone = new AgentError('DEVICE_GONE', 'there is no such device');
  const choice = new TrackerRegistry([candidate('ebpf', [], gone), candidate('blktrace', [])]);
  await assert.rejects(choice.start(device, 'auto'), { code: 'DEVICE_GONE' });
});

test('a query opens only trackers that are in use or left something, and stop and close end them', async () => {
  const log: string[] = [];
  const choice = new TrackerRegistry([candidate('ebpf', log)]);
  assert.equal(await choice.look(device), undefined);
  assert.deepEqual(log, []);
  const left = new TrackerRegistry([candidate('ebpf', log, undefined, true)]);
  assert.equal(await left.look(device), undefined);
  assert.deepEqual(log, ['ebpf open']);
  await choice.start(device, 'auto');
  const looked = await choice.look(device);
  assert.deepEqual([looked?.state.epoch.id, looked?.doubt], ['ebpf-1', 'lost one']);
  await choice.untrack(device);
  assert.equal(await choice.look(device), undefined);
  log.length = 0;
  await choice.stop();
  await choice.start(device, 'auto');
  await choice.close();
  assert.deepEqual(log, ['ebpf close', 'ebpf open', 'ebpf track', 'ebpf close']);
});
