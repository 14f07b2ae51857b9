import assert from 'node:assert/strict';
import { test } from 'node:test';
import { formatDuration, parseDuration } from './duration.ts';

test('durations are read with and without units', () => {
  const cases: [string, number][] = [
    ['500ms', 500],
    ['2s', 2000],
    ['2', 2000],
    ['1.5s', 1500],
    ['10m', 600_000],
    ['10 min', 600_000],
    ['1h', 3_600_000],
    ['0', 0],
  ];
  for (const [text, ms] of cases) assert.equal(parseDuration(text), ms, text);
});

test('any other text is refused, and the message names the value', () => {
  for (const text of ['', 's', '-1s', '2 weeks', '1e3', 'NaN', '2ss'])
    assert.throws(() => parseDuration(text, '--max-freeze'), {
      code: 'BAD_USAGE',
      message: `--max-freeze "${text}" is not a length of time`,
    });
});

test('durations are written for people', () => {
  assert.equal(formatDuration(0), '0 ms');
  assert.equal(formatDuration(850.4), '850 ms');
  assert.equal(formatDuration(2449), '2.4 s');
  assert.equal(formatDuration(59_960), '1:00');
  assert.equal(formatDuration(187_000), '3:07');
  assert.equal(formatDuration(3_765_000), '1:02:45');
});
