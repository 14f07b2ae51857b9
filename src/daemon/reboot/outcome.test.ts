import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fakeTracker } from '../../../test/helpers/fake-tracker.ts';
import { TrackerRegistry } from '../../tracking/tracker-registry.ts';
import { describeOutcome, type RebootOutcome, withReasonOfReboot } from './outcome.ts';

const shutdown = '2026-11-24T10:00:00.000Z';
const device = {
  ...{ path: '/dev/sda1', major: 8, minor: 1, size: 4096, uuid: 'a' },
  ...{ partition: undefined, diskSequence: undefined },
};

function outcome(more: Partial<RebootOutcome> = {}): RebootOutcome {
  return { shutdown, why: null, devices: [], ...more };
}

const continued = outcome({ devices: [{ device: '/dev/sda1', uuid: 'a', epoch: 'e', why: null }] });
const mounted = outcome({
  devices: [{ device: '/dev/sda1', uuid: 'a', epoch: null, why: 'its mount count …' }],
});

test('each device is described after a reboot', () => {
  assert.equal(describeOutcome(undefined, 'a', 'e'), undefined);
  assert.match(describeOutcome(continued, 'a', 'e') ?? '', /^continued over the reboot of 2026/);
  assert.equal(describeOutcome(continued, 'a', 'another, begun since'), undefined);
  assert.match(describeOutcome(mounted, 'a', undefined) ?? '', /^not continued .*: its mount count …$/);
  assert.match(describeOutcome(continued, 'b', undefined) ?? '', /: it was not tracked then$/);
  const none = outcome({ shutdown: null, why: 'there is no record' });
  assert.match(describeOutcome(none, '', undefined) ?? '', /^not continued over the reboot: there is no/);
});

test('a differential reports why tracking did not continue', async () => {
  const start = (found: RebootOutcome | undefined) =>
    withReasonOfReboot(new TrackerRegistry([fakeTracker()]).start, found)(device, 'auto');
  const doubt = async (found: RebootOutcome | undefined) => {
    const started = await start(found);
    return started.tracker === undefined ? started.why : started.doubt;
  };
  assert.equal(await doubt(undefined), undefined);
  assert.match((await doubt(mounted)) ?? '', /^tracking was not continued over .* mount count/);
  const goesOn = outcome({ devices: [{ device: '', uuid: 'a', epoch: 'fake-epoch', why: null }] });
  assert.equal(await doubt(goesOn), undefined);
});
