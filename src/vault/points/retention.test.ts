import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { sampleDevice, samplePoint } from '../../../test/helpers/points.ts';
import { AgentError } from '../../base/errors.ts';
import { Calendar } from './calendar.ts';
import { DeviceIdentities } from './identity.ts';
import type { Point } from './point.ts';
import { type RetentionOptions, type RetentionRules, choosePoints } from './retention.ts';

const hourMs = 3600_000;
const dayMs = 24 * hourMs;
const now = Date.parse('2030-01-01T00:00:00.000Z');

function at(time: string | number, changes: Partial<Point> = {}): Point {
  return samplePoint({ finished: new Date(time).toISOString(), ...changes });
}

/** Returns the kept times of the points of one group, latest first. */
function kept(
  times: readonly (string | number)[],
  rules: RetentionRules,
  options: Partial<RetentionOptions> = {},
): string[] {
  const points = times.map((time) => at(time));
  const [group, another] = choosePoints(points, rules, { now, timeZone: 'UTC', ...options });
  assert.equal(another, undefined);
  return group!.keep.map(({ point }) => point.finished.replace(':00.000Z', 'Z'));
}

function every(step: number, count: number, from: string): number[] {
  return Array.from({ length: count }, (_, i) => Date.parse(from) + i * step);
}

test('each rule keeps the last point of each of the last periods that have one', () => {
  const hours = every(hourMs, 24 * 40, '2024-01-01T00:30:00Z');
  assert.deepEqual(kept(hours, { last: 2 }), ['2024-02-09T23:30Z', '2024-02-09T22:30Z']);
  assert.deepEqual(kept(hours, { daily: 3 }), [
    '2024-02-09T23:30Z',
    '2024-02-08T23:30Z',
    '2024-02-07T23:30Z',
  ]);
  assert.deepEqual(kept(hours, { weekly: 3 }), [
    '2024-02-09T23:30Z',
    '2024-02-04T23:30Z',
    '2024-01-28T23:30Z',
  ]);
  assert.deepEqual(kept(hours, { monthly: 5 }), ['2024-02-09T23:30Z', '2024-01-31T23:30Z']);
  assert.deepEqual(kept(hours, { yearly: 5 }), ['2024-02-09T23:30Z']);
  assert.equal(kept(hours, { hourly: 30, daily: 5 }).length, 30 + 3);
  assert.equal(kept(hours, { daily: Number.POSITIVE_INFINITY }).length, 40);
});

test('periods without points do not count', () => {
  const times = ['2020-01-01T00:00:00Z', '2022-06-01T00:00:00Z', '2024-01-01T00:00:00Z'];
  assert.equal(kept(times, { daily: 3 }).length, 3);
  assert.equal(kept(times, { hourly: 2 }).length, 2);
});

test('leap days and year boundaries of ISO weeks are handled', () => {
  assert.deepEqual(
    kept(['2024-02-28T12:00:00Z', '2024-02-29T12:00:00Z', '2024-03-01T12:00:00Z'], { daily: 3 }),
    ['2024-03-01T12:00Z', '2024-02-29T12:00Z', '2024-02-28T12:00Z'],
  );
  assert.deepEqual(kept(['2024-02-29T12:00:00Z', '2024-02-28T12:00:00Z'], { monthly: 2 }), [
    '2024-02-29T12:00Z',
  ]);
  const calendar = new Calendar('UTC');
  // From ISO 8601's own examples: week 1 is the week with the year's first Thursday.
  const weeks: [string, string][] = [
    ['2005-01-01', '2004-W53'],
    ['2005-01-02', '2004-W53'],
    ['2005-12-31', '2005-W52'],
    ['2007-01-01', '2007-W01'],
    ['2008-12-29', '2009-W01'],
    ['2010-01-03', '2009-W53'],
    ['2024-12-30', '2025-W01'],
  ];
  for (const [day, week] of weeks) assert.equal(calendar.nameOf('weekly', Date.parse(day)), week, day);
  assert.equal(
    kept(['2024-12-29T12:00:00Z', '2024-12-30T12:00:00Z', '2025-01-01T12:00:00Z'], { weekly: 9 }).length,
    2,
  );
});

test('days of 23 and 25 hours count as one day, and the repeated hour counts as two', () => {
  const timeZone = 'Europe/Berlin';
  // Summer time ended on 27 October 2024 at 01:00 UTC. The local date was 27 October from 22:00 UTC on.
  const autumn = every(hourMs, 25, '2024-10-26T22:30:00Z');
  assert.equal(kept(autumn, { daily: 9 }, { timeZone }).length, 1);
  assert.equal(kept(autumn, { hourly: 99 }, { timeZone }).length, 25);
  assert.equal(
    kept([...autumn, autumn[0]! - hourMs, autumn[24]! + hourMs], { daily: 9 }, { timeZone }).length,
    3,
  );
  // Summer time began on 31 March 2024 at 01:00 UTC.
  const spring = every(hourMs, 23, '2024-03-30T23:30:00Z');
  assert.equal(kept(spring, { daily: 9 }, { timeZone }).length, 1);
  assert.equal(kept(spring, { hourly: 99 }, { timeZone }).length, 23);
  assert.equal(
    kept([...spring, spring[0]! - hourMs, spring[22]! + hourMs], { daily: 9 }, { timeZone }).length,
    3,
  );
  // A time zone with an offset of half an hour, and summer time of half an hour.
  const howe = every(hourMs / 2, 49, '2024-04-06T13:00:00Z');
  assert.equal(kept(howe, { daily: 9 }, { timeZone: 'Australia/Lord_Howe' }).length, 1);
  // A missing day: Samoa skipped 30 December 2011.
  const samoa = every(dayMs, 3, '2011-12-29T12:00:00Z');
  assert.equal(kept(samoa, { daily: 9 }, { timeZone: 'Pacific/Apia' }).length, 3);
});

test('a point from the future displaces no valid point, and is kept', () => {
  const times = ['2029-12-30T00:00:00Z', '2029-12-31T00:00:00Z', '2099-01-01T00:00:00Z'];
  assert.deepEqual(kept(times, { last: 1 }), ['2099-01-01T00:00Z', '2029-12-31T00:00Z']);
  assert.deepEqual(kept(times, { yearly: 1 }), ['2099-01-01T00:00Z', '2029-12-31T00:00Z']);
  // The clocks of two machines differ a little.
  assert.deepEqual(kept([now - dayMs, now + 60_000], { last: 1 }), ['2030-01-01T00:01Z']);
});

test('a point from before the vault was created is kept, because it may be the last one', () => {
  const vaultCreated = Date.parse('2024-01-01T00:00:00Z');
  const times = ['1970-01-01T00:05:00Z', '2024-02-01T00:00:00Z', '2024-02-02T00:00:00Z'];
  assert.deepEqual(kept(times, { last: 1 }, { vaultCreated }), ['2024-02-02T00:00Z', '1970-01-01T00:05Z']);
  assert.deepEqual(kept(times, { last: 1 }), ['2024-02-02T00:00Z']);
});

test('a wrong clock of this machine forgets no more points than a right one', () => {
  const times = every(dayMs, 60, '2024-01-01T00:00:00Z');
  const rules = { last: 2, weekly: 3 };
  const right = new Set(kept(times, rules));
  for (const wrong of [0, Date.parse('2024-01-20'), Date.parse('2024-02-28'), Date.parse('2100-01-01')]) {
    const others = new Set(kept(times, rules, { now: wrong }));
    if (wrong > times.at(-1)!) assert.deepEqual(others, right);
    else assert.ok(others.size >= right.size);
  }
});

test('protected and damaged points are kept', () => {
  const points = every(hourMs, 4, '2024-01-01T00:00:00Z').map((time) => at(time));
  const [a, b, c, d] = points;
  const options = { now, timeZone: 'UTC', protected: new Set([a!.id]), damaged: new Set([d!.id]) };
  const [group] = choosePoints(points, { daily: 1 }, options);
  assert.deepEqual(
    group!.keep.map(({ point, reasons }) => [point.id, reasons]),
    [
      [d!.id, ['damaged, forgotten only by name']],
      [c!.id, ['daily 1 (2024-01-01)']],
      [a!.id, ['protected']],
    ],
  );
  assert.deepEqual(group!.forget, [b]);
});

test('each machine and each set of devices has its own group', () => {
  const machine = samplePoint().machine;
  const disk = { identity: 'disk naa.5 partition 1' };
  const moved = sampleDevice({ path: '/dev/sdz1', ...disk });
  const other = sampleDevice({ filesystem: { type: 'xfs', uuid: 'other', label: '' } });
  const groups = [
    // The kernel numbered the disks in another order.
    [at('2024-01-01', { devices: [sampleDevice(disk)] }), at('2024-01-02', { devices: [moved] })],
    [at('2024-01-01', { devices: [other] }), at('2024-01-02', { devices: [other] })],
    [at('2024-01-01', { devices: [other, moved] }), at('2024-01-02', { devices: [moved, other] })],
    // A clone.
    [
      at('2024-01-01', { machine: { ...machine, name: 'beta' } }),
      at('2024-01-02', { machine: { ...machine, name: 'beta' } }),
    ],
    [
      at('2024-01-01', { machine: { ...machine, id: '' } }),
      at('2024-01-02', { machine: { ...machine, id: '' } }),
    ],
  ];
  const chosen = choosePoints(groups.flat(), { last: 1 }, { now });
  assert.equal(chosen.length, groups.length);
  for (const [index, group] of groups.entries()) {
    assert.deepEqual(
      chosen[index]!.keep.map(({ point }) => point),
      [group[1]],
    );
    assert.deepEqual(chosen[index]!.forget, [group[0]]);
  }
});

test('clones with one UUID are separate devices', () => {
  const clone = (path: string, identity?: string) =>
    sampleDevice({ path, partition: null, ...(identity === undefined ? {} : { identity }) });
  const forgotten = (...devices: [string, string?][]): string[] => {
    const points = devices.map(([path, identity], day) =>
      at(`2024-01-0${day + 1}`, { devices: [clone(path, identity)] }),
    );
    return choosePoints(points, { last: 1 }, { now })
      .flatMap(({ forget }) => forget.map(({ finished }) => finished.slice(9, 10)))
      .sort();
  };
  assert.deepEqual(forgotten(['/dev/loop0', 'file /a'], ['/dev/loop1', 'file /b']), []);
  assert.deepEqual(forgotten(['/dev/loop0', 'file /a'], ['/dev/loop1', 'file /a']), ['1']);
  // The clones swapped their paths.
  assert.deepEqual(
    forgotten(['/dev/loop0', 'file /a'], ['/dev/loop0', 'file /b'], ['/dev/loop0', 'file /a']),
    ['1'],
  );
  // Points of the first versions record no identity. One path is one device; several paths are not clear, and their
  // points are kept.
  assert.deepEqual(forgotten(['/dev/sda1'], ['/dev/sda1']), ['1']);
  assert.deepEqual(forgotten(['/dev/sda1'], ['/dev/sdb1'], ['/dev/sda1']), []);
  assert.deepEqual(forgotten(['/dev/sda1'], ['/dev/sda1', 'disk x']), ['1']);
  assert.deepEqual(forgotten(['/dev/sda1'], ['/dev/sda1', 'disk x'], ['/dev/sda1', 'disk y']), []);
  assert.deepEqual(forgotten(['/dev/sda1'], ['/dev/sdb1', 'disk x'], ['/dev/sdb1', 'disk x']), ['2']);
  const [group] = choosePoints(
    [
      at('2024-01-01', { devices: [clone('/dev/sda1')] }),
      at('2024-01-02', { devices: [clone('/dev/sdb1')] }),
    ],
    { last: 1 },
    { now },
  );
  assert.match(
    group!.keep[0]!.reasons[0]!,
    /^device is not clear, because \/dev\/sda1 and \/dev\/sdb1 have one UUID/,
  );
});

test('clones are recognised even if the rules are for one of them only', () => {
  const points = ['/dev/sda1', '/dev/sdb1', '/dev/sda1'].map((path, day) =>
    at(`2024-01-0${day + 1}`, { devices: [sampleDevice({ path })] }),
  );
  const some = points.filter(({ devices }) => devices[0]!.path === '/dev/sda1');
  const [group] = choosePoints(some, { last: 1 }, { now, identities: new DeviceIdentities(points) });
  assert.deepEqual(group!.forget, []);
});

test('points whose time is far from their arrival in the store displace no valid points', () => {
  const good = every(dayMs, 10, '2029-12-20T02:00:00Z').map((time) => at(time));
  // A compromised machine adds a point at the end of each day, and one before all others.
  const forged = [
    ...every(dayMs, 10, '2029-12-20T23:00:00Z').map((time) => at(time)),
    at('1999-01-01T00:00:00Z'),
  ];
  const stored = new Map([
    ...good.map(({ id, finished }): [string, number] => [id, Date.parse(finished) + hourMs]),
    ...forged.map(({ id }): [string, number] => [id, now - 2 * dayMs]),
  ]);
  const rules = { last: 3, daily: 10, yearly: 5 };
  const [group] = choosePoints([...good, ...forged], rules, { now, timeZone: 'UTC', stored });
  const reasons = new Map(group!.keep.map((each) => [each.point.id, each.reasons.join()]));
  for (const { id } of good) assert.ok(reasons.has(id));
  for (const { id, finished } of forged)
    if (Math.abs(Date.parse(finished) - (now - 2 * dayMs)) > dayMs)
      assert.match(
        reasons.get(id) ?? '',
        /^its time is far from its arrival in the store at 2029-12-30T00:00Z$/,
      );
  // Without the store's times (a copied vault), the points' own times are trusted.
  const [copied] = choosePoints([...good, ...forged], { daily: 10 }, { now, timeZone: 'UTC' });
  assert.equal(copied!.keep.length, 10);
});

test(
  'a point that arrived late displaces none, and is forgotten if no rule keeps it at either of ' +
    'its times',
  () => {
    const good = every(dayMs, 10, '2029-12-20T02:00:00Z').map((time) => at(time));
    const slow = at('2029-12-22T12:00:00Z');
    // The clock was decades behind.
    const behind = at('1999-01-01T00:00:00Z');
    const points = [...good, slow, behind];
    const chosen = (rules: RetentionRules, arrived: string, more: Partial<RetentionOptions> = {}) => {
      const stored = new Map([
        ...good.map(({ id, finished }): [string, number] => [id, Date.parse(finished) + hourMs]),
        ...[slow, behind].map(({ id }): [string, number] => [id, Date.parse(arrived)]),
      ]);
      const [group] = choosePoints(points, rules, { now, timeZone: 'UTC', stored, ...more });
      assert.ok(good.slice(-3).every(({ id }) => group!.keep.some(({ point }) => point.id === id)));
      return [slow, behind].map(({ id }) => group!.keep.some(({ point }) => point.id === id));
    };
    // At noon the point would be the last of its day, but the valid point of the day stays.
    assert.deepEqual(chosen({ daily: 10 }, '2029-12-25T00:00:00Z'), [true, false]);
    assert.deepEqual(chosen({ last: 3 }, '2029-12-25T00:00:00Z'), [false, false]);
    // No valid point is later than their arrival, so they may be the newest points.
    assert.deepEqual(chosen({ last: 3 }, '2029-12-30T00:00:00Z'), [true, true]);
    const held = '2029-12-25T00:00:00Z';
    assert.deepEqual(chosen({ last: 3 }, held, { protected: new Set([slow.id]) }), [true, false]);
    assert.deepEqual(chosen({ last: 3 }, held, { damaged: new Set([slow.id]) }), [true, false]);
    const stored = new Map([slow, behind].map(({ id }) => [id, Date.parse(held)]));
    const grace = { ms: 10 * dayMs, storeNow: now, stored };
    assert.deepEqual(chosen({ last: 3 }, held, { grace }), [true, true]);
  },
);

test('a vault that was created by a clock that was ahead forgets like any other', () => {
  const vaultCreated = Date.parse('2029-12-01T00:00:00Z');
  const points = every(dayMs, 5, '2029-11-01T00:00:00Z').map((time) => at(time));
  const stored = new Map(points.map(({ id, finished }) => [id, Date.parse(finished)]));
  const options = { now, timeZone: 'UTC', vaultCreated, stored };
  assert.equal(choosePoints(points, { last: 1 }, options)[0]!.forget.length, 4);
  const later = { now, timeZone: 'UTC', vaultCreated: Date.parse('2099-01-01T00:00:00Z') };
  assert.equal(choosePoints(points, { last: 1 }, later)[0]!.forget.length, 4);
});

test('new points displace others only after the grace time in the store', () => {
  const old = every(hourMs, 6, '2029-12-20T00:00:00Z').map((time) => at(time));
  const flood = every(60_000, 30, '2029-12-31T20:00:00Z').map((time) => at(time));
  const stored = new Map([...old, ...flood].map(({ id, finished }) => [id, Date.parse(finished)]));
  const rules = { last: 3, daily: 2 };
  const chosen = (storeNow: number) => {
    const options = { now: storeNow, timeZone: 'UTC', stored, grace: { ms: dayMs, storeNow, stored } };
    return choosePoints([...old, ...flood], rules, options)[0]!;
  };
  const during = chosen(now);
  assert.deepEqual(
    during.forget.map(({ id }) => id),
    old
      .slice(0, 3)
      .map(({ id }) => id)
      .reverse(),
  );
  const reasons = new Map(during.keep.map((each) => [each.point.id, each.reasons.join()]));
  assert.match(reasons.get(flood[0]!.id) ?? '', /^in the store for less than 24 h$/);
  assert.match(reasons.get(old[4]!.id) ?? '', /^last 2 without points of the last 24 h$/);
  // Among all points it is already the last of its day.
  assert.equal(reasons.get(old[5]!.id), 'daily 2 (2029-12-20)');
  const afterwards = chosen(now + 2 * dayMs);
  assert.equal(afterwards.keep.length, 4);
});

test('rules that keep nothing are refused', () => {
  const rules: RetentionRules[] = [
    {},
    { last: 0, daily: 0 },
    { last: -1 },
    { daily: 1.5 },
    { weekly: Number.NaN },
    { last: 1, yearly: -1 },
  ];
  for (const each of rules)
    assert.throws(
      () => choosePoints([at('2024-01-01')], each, { now }),
      (error) => error instanceof AgentError && error.code === 'BAD_USAGE',
    );
});

test('property: each point is kept or forgotten once, the latest is kept, more rules keep more', () => {
  const count = fc.integer({ min: 0, max: 6 });
  const anyRules = fc.record({
    last: count,
    hourly: count,
    daily: count,
    weekly: count,
    monthly: count,
    yearly: count,
  });
  const times = fc.array(fc.integer({ min: Date.parse('2023-01-01'), max: Date.parse('2024-12-31') }), {
    minLength: 1,
    maxLength: 60,
  });
  const zone = fc.constantFrom(
    'UTC',
    'Europe/Berlin',
    'America/St_Johns',
    'Pacific/Chatham',
    'Africa/Casablanca',
  );
  fc.assert(
    fc.property(times, anyRules, zone, (finished, rules, timeZone) => {
      fc.pre(Object.values(rules).some((each) => each > 0));
      const points = finished.map((time) => at(time));
      const options = { now, timeZone };
      const [group] = choosePoints(points, rules, options);
      const keep = new Set(group!.keep.map(({ point }) => point.id));
      const forget = new Set(group!.forget.map(({ id }) => id));
      assert.equal(keep.size + forget.size, points.length);
      for (const { id } of points) assert.ok(keep.has(id) !== forget.has(id));
      assert.equal(Date.parse(group!.keep[0]!.point.finished), Math.max(...finished));
      assert.ok(keep.size <= Object.values(rules).reduce((sum, each) => sum + each, 0));

      // Applying the rules again changes nothing.
      const again = choosePoints(
        points.filter(({ id }) => keep.has(id)),
        rules,
        options,
      );
      assert.deepEqual(again[0]!.forget, []);
      const [more] = choosePoints(points, { ...rules, daily: rules.daily + 1 }, options);
      const keepMore = new Set(more!.keep.map(({ point }) => point.id));
      for (const id of keep) assert.ok(keepMore.has(id));
      // The order of the points does not matter.
      const reversed = choosePoints([...points].reverse(), rules, options);
      assert.deepEqual(new Set(reversed[0]!.keep.map(({ point }) => point.id)), keep);
    }),
    { numRuns: 150 },
  );
});
